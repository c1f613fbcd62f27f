/* outline: reads a list of records and prints each with the path to its root.
 *
 * One record a line: the number of its parent (from 0, "-" for none), the length of its name, the name.
 *     - 6:plants
 *     0 5:trees
 *     1 3:oak
 * prints
 *     plants
 *     plants/trees
 *     plants/trees/oak
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SIZE = 128, NAME_SIZE = 16, MAX_RECORDS = 64 };

struct record {
    size_t length;
    char name[NAME_SIZE];
    struct record *parent;
};

static struct record *records[MAX_RECORDS];
static int count;

static void refuse(int line, const char *why)
{
    fprintf(stderr, "line %d: %s\n", line, why);
    exit(2);
}

static struct record *find_parent(int line, const char *field)
{
    char *end;
    long number;

    if (strcmp(field, "-") == 0)
        return NULL;
    number = strtol(field, &end, 10);
    if (*end != '\0' || number < 0 || number >= count)
        refuse(line, "no such parent");
    return records[number];
}

static void read_name(int line, struct record *record, const char *field)
{
    char *name;
    size_t length = strtoul(field, &name, 10);

    if (*name++ != ':')
        refuse(line, "a name starts with its length and a colon");
    if (length > strlen(name))
        refuse(line, "the name is shorter than its length");
    memcpy(record->name, name, length);
    record->length = length;
}

static void read_record(int line, char *text)
{
    char *name = strchr(text, ' ');
    struct record *record;

    if (name == NULL)
        refuse(line, "a record is a parent and a name");
    if (count == MAX_RECORDS)
        refuse(line, "too many records");
    *name++ = '\0';
    record = calloc(1, sizeof *record);
    if (record == NULL)
        refuse(line, "out of memory");
    record->parent = find_parent(line, text);
    read_name(line, record, name);
    records[count++] = record;
}

static void read_records(FILE *file)
{
    char text[LINE_SIZE];

    for (int line = 1; fgets(text, sizeof text, file) != NULL; line++) {
        text[strcspn(text, "\n")] = '\0';
        if (text[0] != '\0' && text[0] != '#')
            read_record(line, text);
    }
}

static void print_path(const struct record *record)
{
    if (record->parent != NULL) {
        print_path(record->parent);
        putchar('/');
    }
    printf("%.*s", (int)record->length, record->name);
}

int main(int argc, char **argv)
{
    FILE *file;

    if (argc != 2) {
        fprintf(stderr, "usage: outline FILE\n");
        return 64;
    }
    file = fopen(argv[1], "r");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
        return 66;
    }
    read_records(file);
    fclose(file);
    for (int i = 0; i < count; i++) {
        print_path(records[i]);
        putchar('\n');
    }
    return 0;
}
