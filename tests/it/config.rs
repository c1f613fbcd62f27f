//! Configuration files: each of `tests/config/*.toml` shows a rule, those of `tests/config/mistakes` a mistake. What comes of them
//! is beside them; a change of behaviour shows as a change there (`cargo insta review`).
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
    api::{AigiseSession, limits},
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

use super::model::{planned, settings};

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
