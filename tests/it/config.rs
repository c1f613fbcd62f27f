//! Configuration files: each of `tests/config/*.toml` shows a rule, those of `tests/config/mistakes` a mistake, and those of
//! `tests/config/corpus` have the keys and shapes of files that people have. What comes of them is beside them; a change of behaviour shows as a change there (`cargo insta review`).
//!
//! A line `#: NAME = value` gives a variable, `#: NAME = secret: value` one from a Secret, `#: from secret` says that the file is
//! from one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::{ExposeSecret, SecretString};

use aigise_operator::{
    api::{AigiseSession, RawJson, limits, meta, template::Entrypoint},
    config::{self, Configuration, ErrorKind, Input, Origin, VariableValue, Variables, keys, manifest, merge, write},
    plan::{
        ChildState, Created, Decide, Write,
        effective::{Decided, EffectiveSession, configuration},
        session,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use super::model::{Event, World, planned, settings};

/// A file with what its first lines give.
struct Case {
    text: String,
    variables: Variables,
    origin: Origin,
}

impl Case {
    fn of(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut case = Self { text: text.clone(), variables: Variables::new(), origin: Origin::Plain };
        for line in text.lines().filter_map(|line| line.strip_prefix("#: ")) {
            let Some((name, value)) = line.split_once(" = ") else {
                assert_eq!(line, "from secret");
                case.origin = Origin::Secret;
                continue;
            };
            let given = match value.strip_prefix("secret: ") {
                Some(secret) => VariableValue::Secret(SecretString::from(secret.to_string())),
                None => VariableValue::Plain(value.to_string()),
            };
            case.variables.insert(name.to_string(), given);
        }
        case
    }

    fn read(&self) -> Result<Configuration, config::Error> {
        config::read(self.input(&self.text))
    }

    fn input<'a>(&'a self, file: &'a str) -> Input<'a> {
        Input { file, origin: self.origin, variables: &self.variables, secret_name: "demo--config" }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn shown(configuration: &Configuration) -> String {
    let mut text = manifest::manifest("demo", &configuration.spec);
    for (key, secret) in &configuration.secrets {
        writeln!(text, "--- secret {key}\n{}", secret.expose_secret()).unwrap();
    }
    for ignored in &configuration.ignored {
        writeln!(text, "--- ignored {}\n{}", ignored.key, ignored.reason).unwrap();
    }
    writeln!(text, "--- as a file").unwrap();
    text + &write::toml(configuration, write::Secrets::AsVariables).unwrap()
}

#[test]
fn each_file_becomes_the_session_that_is_written_down() {
    for path in files(&folder()) {
        let configuration = Case::of(&path).read().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        insta::with_settings!({ snapshot_path => "../config", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(stem(&path), shown(&configuration));
        });
    }
}

/// What becomes of a session from this file: the program of each sandbox and the keys without an effect, or why there are no Pods.
fn outcome(file: &str, variables: &Variables, own: Value) -> String {
    let mut world = World::new();
    world.happens(Event::ConfigMap { name: "file".into(), content: file.into() });
    let variables = variables.iter().map(|(name, value)| match value {
        VariableValue::Plain(value) => json!({"name": name, "value": value}),
        VariableValue::Secret(_) => panic!("the files of others come without secrets"),
    });
    let mut spec = own;
    spec["configFrom"] = json!({"configMapKeyRef": {"name": "file", "key": "config.toml"}});
    spec["variables"] = variables.collect();
    world.happens(Event::ApplySession(Box::new(session_of(&spec))));
    let conditions = &world.sessions["demo"].status.as_ref().unwrap().conditions;
    let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    if world.sandboxes.is_empty() {
        let ready = condition("Ready");
        return format!("  {}: {}\n", ready.reason, ready.message);
    }
    let mut text = String::new();
    for name in world.sandboxes.keys() {
        let pod = world.pods.get(name).unwrap_or_else(|| panic!("{name} has no Pod"));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let runs = match (&container.command, &container.args) {
            (Some(command), None) => command.join(" "),
            (None, None) => "its image".into(),
            (None, Some(args)) => format!("its image with the arguments {}", args.join(" ")),
            (Some(_), Some(_)) => panic!("{name} has a command with arguments"),
        };
        writeln!(text, "  {name} runs {runs}").unwrap();
    }
    text + "  " + &condition("ConfigValid").message + "\n"
}

#[test]
fn the_files_of_the_frameworks_users_become_sessions_or_name_the_line_to_change() {
    let mut outcomes = String::new();
    for path in files(&folder().join("corpus")) {
        let case = Case::of(&path);
        let alone = outcome(&case.text, &Variables::new(), json!({}));
        write!(outcomes, "{}\n{alone}", stem(&path)).unwrap();
        if !case.variables.is_empty() {
            let given = outcome(&case.text, &case.variables, json!({}));
            write!(outcomes, "{} with its variables\n{given}", stem(&path)).unwrap();
        }
    }
    insta::with_settings!({ snapshot_path => "../config", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("corpus", outcomes);
    });
}

#[test]
fn a_file_without_sandboxes_is_enough_beside_those_of_the_session() {
    for name in ["web-search", "assistant", "local"] {
        let case = Case::of(&folder().join("corpus").join(name).with_extension("toml"));
        let own = json!({"sandboxes": {"main": {"image": "a:1"}}});
        let beside = outcome(&case.text, &Variables::new(), own);
        assert!(
            beside.starts_with("  demo--main runs /aigise/sandboxd idle\n  The configuration file was read."),
            "{beside}"
        );
    }
}

/// Two services in one sandbox; the rest of the sandbox is given.
fn serves(rest: &str) -> String {
    format!(
        "[mcp.services]\na.sse_port = 1112\nb.sse_port = 1113\n[sandbox.sandboxes.gdb_mcp]\nimage = 'i'\n\
         ports = {{'8002/tcp' = 1112, '8003/tcp' = 1113}}\n{rest}\n"
    )
}

#[test]
fn only_a_sandbox_that_waits_for_itself_and_says_nothing_runs_the_entrypoint_of_its_image() {
    let waits = serves("mcp_services = ['a', 'b']");
    for (file, own, runs) in [
        (&waits, json!({}), "its image with the arguments /aigise/sandboxd idle"),
        (&serves(""), json!({}), "/aigise/sandboxd idle"),
        (&serves("mcp_services = ['a']\ncommand = ''"), json!({}), "its image"),
        (&serves("mcp_services = ['a']\ncommand = ['serve']"), json!({}), "serve"),
        (&waits, json!({"sandboxDefaults": {"command": ["serve"]}}), "serve"),
        (&waits, json!({"sandboxDefaults": {"entrypoint": "Image"}}), "its image"),
        (&waits, json!({"sandboxes": {"gdb_mcp": {"entrypoint": "Idle"}}}), "/aigise/sandboxd idle"),
        (&waits, json!({"sandboxes": {"gdb_mcp": {"command": ["serve"]}}}), "serve"),
        // A step, or a container beside it, may start the services.
        (
            &waits,
            json!({"sandboxes": {"gdb_mcp": {"init": {"steps": [{"name": "s", "command": ["serve"]}]}}}}),
            "/aigise/sandboxd idle",
        ),
        (
            &waits,
            json!({"sandboxes": {"gdb_mcp": {"podTemplate": {"spec": {"containers": [{"name": "server", "image": "s"}]}}}}}),
            "/aigise/sandboxd idle",
        ),
        (
            &waits,
            json!({"sandboxDefaults": {"podTemplate": {"spec": {"initContainers": [{"name": "server", "image": "s", "restartPolicy": "Always"}]}}}}),
            "/aigise/sandboxd idle",
        ),
        (
            &waits,
            json!({"sandboxes": {"gdb_mcp": {"podTemplate": {"spec": {"containers": [{"name": "sandbox", "tty": true}]}}}}}),
            "its image with the arguments /aigise/sandboxd idle",
        ),
        (
            &waits,
            json!({"mcpServices": {"a": {"sandbox": "other", "port": 1}, "b": {"sandbox": "other", "port": 2}}, "sandboxes": {"other": {"image": "o"}}}),
            "/aigise/sandboxd idle",
        ),
    ] {
        let outcome = outcome(file, &Variables::new(), own.clone());
        assert!(outcome.starts_with(&format!("  demo--gdb-mcp runs {runs}\n")), "{own} {file}: {outcome}");
    }
    // With scripts, the profile of the type says what runs.
    let input = Input { file: &waits, origin: Origin::Plain, variables: &Variables::new(), secret_name: "s" };
    let config::Configuration { spec, ignored, .. } = config::read(input).unwrap();
    let read = configuration::Configuration::Read { spec: RawJson::from(&spec), ignored };
    let own = json!({"configFrom": {"configMapKeyRef": {"name": "file", "key": "k"}}, "volumes": {"scripts": {"claimName": "s"}}});
    let session = EffectiveSession::reading(Arc::new(session_of(&own)), &read);
    let decided = Decided::of(&session, &settings());
    assert_eq!(decided.template("gdb_mcp").unwrap().entrypoint, Some(Entrypoint::Image), "{:?}", decided.invalid());
}

/// The Pod of the only sandbox of a session, and whether the sandbox is said to be out of date.
fn pod_of(world: &World) -> (String, String, bool) {
    let conditions = &world.sandboxes["demo--gdb-mcp"].status.as_ref().unwrap().conditions;
    let out_of_date = conditions.iter().find(|condition| condition.type_ == "OutOfDate").unwrap();
    let metadata = &world.pods["demo--gdb-mcp"].metadata;
    let hash = metadata.annotations.as_ref().unwrap()[meta::TEMPLATE_HASH].clone();
    (metadata.uid.clone().unwrap(), hash, out_of_date.status == "True")
}

#[test]
fn a_pod_of_an_earlier_version_is_kept_and_a_changed_manifest_is_followed() {
    let from_file = |world: &mut World| {
        world.happens(Event::ConfigMap { name: "file".into(), content: serves("mcp_services = ['a']") });
        let spec = json!({"configFrom": {"configMapKeyRef": {"name": "file", "key": "config.toml"}}});
        world.happens(Event::ApplySession(Box::new(session_of(&spec))));
    };
    // An earlier version made the same Sandbox, without an entrypoint.
    let without = json!({
        "mcpServices": {"a": {"sandbox": "gdb_mcp", "port": 8002}, "b": {"sandbox": "gdb_mcp", "port": 8003}},
        "sandboxes": {"gdb_mcp": {"image": "i", "mcpServices": ["a"], "ports": [{"containerPort": 8002}, {"containerPort": 8003}]}},
    });
    let mut written = World::new();
    written.happens(Event::ApplySession(Box::new(session_of(&without))));
    written.happens(Event::Running("demo--gdb-mcp".into()));
    let (uid, earlier, _) = pod_of(&written);

    let mut read = World::new();
    from_file(&mut read);
    read.happens(Event::Running("demo--gdb-mcp".into()));
    let (present, hash, _) = pod_of(&read);
    assert_ne!(hash, earlier, "the new Pod is another one");
    let annotations = read.pods.get_mut("demo--gdb-mcp").unwrap().metadata.annotations.as_mut().unwrap();
    annotations.insert(meta::TEMPLATE_HASH.into(), earlier.clone());
    read.happens(Event::Restart);
    assert_eq!(pod_of(&read), (present, earlier.clone(), false));

    let mut with = without;
    with["sandboxes"]["gdb_mcp"]["entrypoint"] = "ImageThenIdle".into();
    written.happens(Event::ApplySession(Box::new(session_of(&with))));
    assert_eq!(pod_of(&written), (uid, earlier, true));

    // A file does not make a Pod of an earlier version of what the user has written beside it.
    let mut beside = World::new();
    let text = "[sandbox.sandboxes.other]\nimage = 'o'\n".to_string();
    beside.happens(Event::ConfigMap { name: "file".into(), content: text });
    let spec = |entrypoint: &str| {
        json!({
            "configFrom": {"configMapKeyRef": {"name": "file", "key": "config.toml"}},
            "sandboxes": {"gdb_mcp": {"image": "i", "entrypoint": entrypoint}},
        })
    };
    beside.happens(Event::ApplySession(Box::new(session_of(&spec("Idle")))));
    beside.happens(Event::Running("demo--gdb-mcp".into()));
    assert!(!pod_of(&beside).2);
    beside.happens(Event::ApplySession(Box::new(session_of(&spec("ImageThenIdle")))));
    assert!(pod_of(&beside).2);
}

#[test]
fn line_ends_and_a_byte_order_mark_of_other_systems_are_read() {
    let text = "task_name = 'a'\n[sandbox.sandboxes.main]\nimage = 'a'\nenvironment.A = \"\"\"\none\ntwo\"\"\"\n";
    let read = |text: &str| {
        let input = Input { file: text, origin: Origin::Plain, variables: &Variables::new(), secret_name: "s" };
        config::read(input)
    };
    let plain = read(text).unwrap();
    let others = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(read(&others).unwrap().spec, plain.spec);
    let error = read(&others.replace("'a'\r\nenv", "{}\r\nenv")).unwrap_err();
    assert_eq!(error.position.to_string(), "line 3, column 9");
    let error = read("\u{feff}task_name = []").unwrap_err();
    assert_eq!(error.position.to_string(), "line 1, column 13");
}

#[test]
fn each_mistake_is_reported_with_its_place_and_without_what_stands_there() {
    let mut reported = String::new();
    let mut kinds = BTreeSet::new();
    for path in files(&folder().join("mistakes")) {
        let case = Case::of(&path);
        let error = case.read().expect_err(stem(&path));
        writeln!(reported, "{}\n  {}: {error}", stem(&path), error.mistake).unwrap();
        kinds.insert(error.mistake.to_string());
        for secret in ["hunter2", "TWO", "apples", "perhaps", "lxc"] {
            assert!(!format!("{error} {error:?}").contains(secret), "{error}");
        }
    }
    insta::with_settings!({ snapshot_path => "../config", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("mistakes", reported);
    });
    let missing: Vec<_> = ErrorKind::iter().filter(|kind| !kinds.contains(&kind.to_string())).collect();
    assert!(missing.is_empty(), "no file shows {missing:?}");
}

/// What of a tree matters: not where it stood, nor what stands for a dollar.
fn values(configuration: &Configuration) -> String {
    let mut file = configuration.file.clone();
    file.remove("DOLLAR");
    let mut clean = configuration.clone();
    clean.file = file;
    write::toml(&clean, write::Secrets::InClear).unwrap()
}

#[test]
fn what_is_written_is_read_as_the_same_again() {
    for path in files(&folder()) {
        let case = Case::of(&path);
        let first = case.read().unwrap();
        // As a file that somebody has, with the variables at hand for what is secret.
        let mut given = case.variables.clone();
        given.retain(|_, value| matches!(value, VariableValue::Secret(_)));
        for (name, secret) in [
            ("API_TOKEN", "hunter2"),
            ("NEO4J_PASSWORD", "hunter3"),
            ("SANDBOX_SANDBOXES_MAIN_ENVIRONMENT_DEPTH", "3"),
            ("SANDBOX_SANDBOXES_MAIN_ENVIRONMENT_TOKEN", "hunter2"),
        ] {
            if case.origin == Origin::Secret {
                given.insert(name.into(), VariableValue::Secret(SecretString::from(secret)));
            }
        }
        for secrets in [write::Secrets::AsVariables, write::Secrets::InClear] {
            let text = write::toml(&first, secrets).unwrap();
            let input = Input { file: &text, variables: &given, ..case.input(&text) };
            let again = config::read(input).unwrap_or_else(|error| panic!("{}: {error}\n{text}", path.display()));
            let written = write::toml(&again, secrets).unwrap();
            assert_eq!(text, written, "{}", path.display());
            if secrets == write::Secrets::AsVariables && case.origin == Origin::Plain {
                assert_eq!(first.spec, again.spec, "{}", path.display());
                let texts = |secrets: &BTreeMap<String, SecretString>| {
                    secrets.values().map(|text| text.expose_secret().to_string()).collect::<Vec<_>>()
                };
                assert_eq!(texts(&first.secrets), texts(&again.secrets), "{}", path.display());
                let keys =
                    |of: &Configuration| of.ignored.iter().map(|ignored| ignored.key.clone()).collect::<BTreeSet<_>>();
                assert_eq!(keys(&first), keys(&again), "{}", path.display());
                assert_eq!(values(&first), values(&again), "{}", path.display());
            }
        }
    }
}

/// Whether all that the one says is said by the other.
fn first_absent(part: &Value, whole: &Value, path: &str) -> Option<String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            whole.get(key).map_or(Some(path.clone()), |of_whole| first_absent(value, of_whole, &path))
        }),
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => {
            part.iter().zip(whole).find_map(|(part, whole)| first_absent(part, whole, path))
        }
        (part, whole) => (part != whole).then(|| path.to_string()),
    }
}

#[test]
fn what_no_session_can_have_so_many_of_is_refused() {
    let many = |count: usize, entry: &dyn Fn(usize) -> String| (0..count).map(entry).collect::<Vec<_>>().join(",");
    let texts = |count| format!("[{}]", many(count, &|entry| format!("'v{entry}:/v{entry}'")));
    let table = |count| format!("{{{}}}", many(count, &|entry| format!("{}=1", entry + 1)));
    for (file, most) in [
        (&(|count| format!("[sandbox.sandboxes.main]\nvolumes={}", texts(count))) as &dyn Fn(usize) -> String, 64),
        (&|count| format!("[sandbox.sandboxes.main]\ncommand={}", texts(count)), 64),
        (&|count| format!("[sandbox.sandboxes.main]\nports={}", table(count)), 64),
        (&|count| format!("[sandbox.sandboxes.main]\nenvironment={}", table(count)), 256),
        (&|count| format!("[sandbox]\ntolerations=[{}]", many(count, &|_| "{}".into())), 64),
        (&|count| format!("[sandbox]\nsandboxes={{{}}}", many(count, &|entry| format!("t{entry}={{}}"))), 32),
        (&|count| format!("[llm]\nmodel_configs={{{}}}", many(count, &|entry| format!("m{entry}.model_name='m'"))), 64),
    ] {
        let read = |count| {
            let input =
                Input { file: &file(count), origin: Origin::Plain, variables: &Variables::new(), secret_name: "s" };
            config::read(input)
        };
        assert!(read(most).is_ok(), "{:?}", read(most));
        assert_eq!(read(most + 1).unwrap_err().mistake, ErrorKind::BadValue);
    }
}

#[test]
fn the_specification_is_in_the_words_of_the_api() {
    for path in files(&folder()) {
        let spec = Case::of(&path).read().unwrap().spec;
        let understood = serde_json::to_value(session_of(&spec).spec).unwrap();
        assert_eq!(first_absent(&spec, &understood, "spec"), None, "{}", path.display());
    }
}

#[test]
fn no_secret_shows_in_a_specification_nor_in_what_is_printed() {
    for name in ["secrets", "secret-file"] {
        let case = Case::of(&folder().join(name).with_extension("toml"));
        let configuration = case.read().unwrap();
        let file = write::toml(&configuration, write::Secrets::AsVariables).unwrap();
        let shown = format!("{configuration:?} {} {file} {:?}", configuration.spec, case.variables);
        for secret in ["hunter2", "hunter3", "0042"] {
            assert!(!shown.contains(secret), "{name}: {shown}");
        }
        let kept = write::toml(&configuration, write::Secrets::InClear).unwrap();
        assert!(kept.contains("hunter2"), "the runner's own has them: {kept}");
    }
}

fn session_of(spec: &Value) -> AigiseSession {
    let object = json!({
        "apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo", "namespace": "default", "uid": "u"},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn observed(session: AigiseSession) -> session::Observed {
    let session = EffectiveSession::of(Arc::new(session));
    session::Observed {
        decided: Arc::new(Decided::of(&session, &settings())),
        session,
        configuration: configuration::Configuration::None,
        config_secret: None,
        claims: BTreeMap::new(),
        existing_claims: BTreeMap::new(),
        stage_pod: ChildState::Absent,
        pull_pod: ChildState::Absent,
        entries: vec![],
        entry: ChildState::Absent,
        restore_pod: ChildState::Absent,
        save_pod: ChildState::Absent,
        pull: session::Pull::default(),
        node_images: None,
        events: vec![],
        service: ChildState::Absent,
        policy: ChildState::Absent,
        stage_policy: ChildState::Absent,
        sandboxes: BTreeMap::new(),
        agents: BTreeMap::new(),
        exec: None,
        config_maps: BTreeMap::new(),
        write_error: None,
        settings: Arc::new(settings()),
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

#[test]
fn the_default_configuration_becomes_a_session_that_plans() {
    let configuration = Case::of(&folder().join("default.toml")).read().unwrap();
    let spec = merge::merge(&configuration.spec, &json!({"sandboxes": {"pdb_mcp": {"workingDir": "/src"}}}));
    let observed = observed(session_of(&spec));
    assert_eq!(observed.session.launched().len(), 7);
    let stage = observed.situation().lifecycle;
    assert!(!matches!(stage, session::Lifecycle::Blocked(_)), "{stage:?}");
    let sandboxes: BTreeSet<_> = planned(&observed)
        .iter()
        .filter_map(|write| match write {
            Write::Create(Created::Sandbox(sandbox)) => sandbox.metadata.name.clone(),
            _ => None,
        })
        .collect();
    let names =
        ["codeql", "coverage", "gdb-mcp", "joern", "main", "neo4j", "pdb-mcp"].map(|label| format!("demo--{label}"));
    assert_eq!(sandboxes, BTreeSet::from(names));
}

#[test]
fn what_the_session_says_itself_is_in_the_effective_file() {
    let case = Case::of(&folder().join("default.toml"));
    let mut configuration = case.read().unwrap();
    let own = json!({
        "taskName": "other", "autoCleanup": false,
        "build": {"targetBinary": "fuzz", "sourceDir": "/src"},
        "models": {"main": {"rpm": 7, "temperature": "1"}, "own": {"modelName": "m"}},
        "mcpServices": {"gdb_mcp": {"sandbox": "main", "port": 9}},
        "sandboxes": {
            "codeql": {"enabled": false},
            "coverage": {"entrypoint": "Idle"},
            "main": {
                "image": "own", "command": ["a", "b"], "workingDir": "/w", "mcpServices": ["gdb_mcp"],
                "resources": {"limits": {"memory": "4Gi", "cpu": "500m"}},
                "env": [{"name": "A", "value": "${NOT_A_VARIABLE}"}],
                "ports": [{"containerPort": 53, "protocol": "UDP"}], "init": {"timeout": "1h"},
            },
        },
    });
    let expected = merge::merge(&configuration.spec, &own);
    write::put_own(&mut configuration.file, &own);
    let text = write::toml(&configuration, write::Secrets::AsVariables).unwrap();
    let again = config::read(case.input(&text)).unwrap();
    let mut expected = expected;
    // The file has no word for these.
    expected["sandboxes"].as_object_mut().unwrap().remove("codeql");
    expected["sandboxes"]["coverage"].as_object_mut().unwrap().remove("entrypoint");
    expected["sandboxes"]["coverage"].as_object_mut().unwrap().remove("command");
    expected["sandboxes"]["main"]["init"]["timeout"] = "3600s".into();
    assert_eq!(again.spec, expected);
}

#[test]
fn every_key_is_explained() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let missing: Vec<_> = keys::all()
        .into_iter()
        .map(|(path, fate)| (path.replace(".*", ".<name>"), fate))
        .filter(|(path, _)| !text.contains(&format!("| `{path}` |")))
        .collect();
    assert!(missing.is_empty(), "docs/configuration.md says nothing of {missing:#?}");
    for mistake in ErrorKind::iter() {
        assert!(text.contains(&format!("`{mistake}`")), "docs/configuration.md says nothing of {mistake}");
    }
}

/// Pieces of which files are made that come close to one.
fn nearly_a_file() -> impl Strategy<Value = String> {
    let words = [
        "[sandbox.sandboxes.main]\n",
        "[sandbox]\n",
        "[mcp.services.a]\n",
        "[[sandbox.tolerations]]\n",
        "[neo4j]\n",
        "[build]\n",
        "[llm.model_configs.m]\n",
        "image = ",
        "ports = ",
        "environment = ",
        "volumes = ",
        "mem_limit = ",
        "command = ",
        "user = ",
        "extra = ",
        "backend = ",
        "tolerations = ",
        "security_opt = ",
        "sse_port = ",
        "sse_host = ",
        "model_name = ",
        "A = ",
        "x = ",
        "'${A}'\n",
        "'a${A}${B}'\n",
        "1\n",
        "-1\n",
        "1e300\n",
        "true\n",
        "''\n",
        "'512m'\n",
        "[]\n",
        "['a:/b', '/a:/b:ro']\n",
        "{}\n",
        "{'80/tcp' = 1, '53/udp' = '${A}'}\n",
        "{host = '', port = 1}\n",
        "'a'\n",
        "1979-05-27\n",
        "nan\n",
        "'\n",
        "\u{0}",
        "é",
        "${",
        "}",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_with_a_place_and_what_is_read_is_written(text in prop_oneof![nearly_a_file(), any::<String>()], secret: bool) {
        let variables = Variables::from([("B".to_string(), VariableValue::Secret(SecretString::from("hunter2")))]);
        let origin = if secret { Origin::Secret } else { Origin::Plain };
        let input = Input { file: &text, origin, variables: &variables, secret_name: "demo--config" };
        match config::read(input) {
            Ok(configuration) => {
                let shown = format!("{configuration:?}");
                prop_assert!(!shown.contains("hunter2"));
                let written = write::toml(&configuration, write::Secrets::InClear).unwrap();
                let again = config::read(Input { file: &written, variables: &Variables::new(), ..input });
                prop_assert!(again.is_ok(), "{:?}\n{}", again, written);
                let _ = manifest::manifest("demo", &configuration.spec);
            }
            Err(error) => {
                prop_assert!(error.position.line <= text.matches('\n').count() + 1);
                prop_assert!(!error.message.contains("hunter2"));
            }
        }
    }

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let text = String::from_utf8_lossy(&bytes);
        let input = Input { file: &text, origin: Origin::Plain, variables: &Variables::new(), secret_name: "s" };
        let _ = config::read(input);
    }
}

#[test]
fn what_a_file_adds_has_a_limit() {
    let read = |bytes: usize| {
        let text = "x".repeat(bytes);
        let file = format!("[sandbox.sandboxes.main]\nimage = \"a\"\nenvironment = {{A = \"{text}\"}}\n");
        let variables = Variables::new();
        let input = Input { file: &file, origin: Origin::Plain, variables: &variables, secret_name: "demo--config" };
        config::read(input).map(|_| ())
    };
    assert_eq!(read(limits::CONFIGURATION_BYTES - 1000), Ok(()));
    let error = read(limits::CONFIGURATION_BYTES).unwrap_err();
    assert_eq!(error.mistake, ErrorKind::TooLarge);
    assert!(error.to_string().contains("the file adds 262"), "{error}");
}

#[test]
fn of_many_keys_without_an_effect_the_first_are_reported() {
    let keys = (0..10_000).map(|index| format!("unknown{index} = 1\n")).collect::<Vec<_>>().concat();
    let file = format!("[sandbox.sandboxes.main]\nimage = \"a\"\n[{}]\n{keys}", "x".repeat(300_000));
    let variables = Variables::new();
    let input = Input { file: &file, origin: Origin::Plain, variables: &variables, secret_name: "demo--config" };
    let ignored = config::read(input).unwrap().ignored;
    assert!(ignored.len() <= 101, "{}", ignored.len());
    assert!(ignored.iter().all(|ignored| ignored.key.len() < 300), "{ignored:?}");
}
