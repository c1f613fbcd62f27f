//! What a session's configuration file is read from, how often, and where its secrets go: the real controllers over an API server in
//! memory.

use std::time::Duration;

use serde_json::{Value, json};

use super::lives::{from_file_session, neo4j, phase, session};
use crate::support::{
    apiserver::{Seen, faults::Effect},
    life::{World, in_fast_time},
};

fn file(text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "arvo"}, "data": {"config.toml": text}})
}

const MAIN: &str = "[sandbox.sandboxes.main]\nimage = \"a:1\"\nenvironment = {PASSWORD = \"${PASSWORD}\"}\n";

/// A session from a file, ready.
async fn ready(password: &str) -> World {
    let mut world = World::new();
    world.apply(file(MAIN)).await;
    world.apply(neo4j(password)).await;
    world.apply(from_file_session()).await;
    world.until("the session is ready", |world| phase(world) == "Ready").await;
    world
}

fn condition(world: &World, kind: &str) -> (String, String, String) {
    let session = world.get("aigisesessions", "demo");
    let conditions = session["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    let word = |field: &str| found[field].as_str().unwrap().to_string();
    (word("status"), word("reason"), word("message"))
}

fn kept(world: &World) -> Value {
    world.get("secrets", "demo--config")["data"].clone()
}

fn base64(text: &str) -> Value {
    json!(k8s_openapi::ByteString(text.into()))
}

fn reads(world: &World, what: &str) -> usize {
    let is_it = |seen: &&Seen| seen.client.starts_with("operator") && seen.line().starts_with(what);
    world.api.requests().iter().filter(is_it).count()
}

#[test]
fn a_secret_stands_in_the_secret_of_its_session_and_nowhere_else() {
    in_fast_time(async {
        let world = ready("hunter2").await;
        assert_eq!(kept(&world), json!({"env.main.PASSWORD": base64("hunter2")}));
        let env = &world.get("sandboxes", "demo--main")["spec"]["env"][0];
        let reference = json!({"secretKeyRef": {"name": "demo--config", "key": "env.main.PASSWORD"}});
        assert_eq!(*env, json!({"name": "PASSWORD", "valueFrom": reference}));
        let encoded = base64("hunter2").as_str().unwrap().to_string();
        for (key, object) in world.api.all() {
            let text = object.to_string();
            assert!(
                key.plural == "secrets" || !text.contains("hunter2") && !text.contains(&encoded),
                "{key:?}: {text}"
            );
        }
        let owner = &world.get("secrets", "demo--config")["metadata"]["ownerReferences"][0];
        assert_eq!(owner["name"], "demo");
    });
}

#[test]
fn files_and_secrets_are_read_by_name_and_no_oftener_than_they_have_to_be() {
    in_fast_time(async {
        let world = ready("hunter2").await;
        let files = |world: &World| reads(world, "get configmaps/arvo");
        let secrets = |world: &World| reads(world, "get secrets/neo4j");
        let checks =
            |world: &World| (reads(world, "get-metadata configmaps/arvo"), reads(world, "get-metadata secrets/neo4j"));
        assert_eq!((files(&world), secrets(&world)), (1, 1), "once for a start, whatever else happens in it");
        tokio::time::sleep(Duration::from_secs(30)).await;
        let writes = world.operator_writes().len();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let (of_file, of_secret) = checks(&world);
        assert!((55..=66).contains(&of_file), "{of_file} checks of the file in an hour");
        assert!((5..=7).contains(&of_secret), "{of_secret} checks of the Secret in an hour");
        assert_eq!((files(&world), secrets(&world)), (1, 1), "what has not changed is not read again");
        assert_eq!(world.operator_writes().len(), writes, "and nothing is written");
        assert_eq!(reads(&world, "list secrets") + reads(&world, "watch secrets"), 0);
    });
}

/// `kubectl create configmap --from-file` stores what is not UTF-8 as binary data.
#[test]
fn a_file_of_bytes_is_read_if_it_is_text_and_says_where_it_is_not() {
    in_fast_time(async {
        let mut world = World::new();
        let bytes = |bytes: &[u8]| {
            let data = json!({"config.toml": k8s_openapi::ByteString(bytes.into())});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "arvo"}, "binaryData": data})
        };
        world.apply(neo4j("hunter2")).await;
        world.apply(bytes(&[b"# a caf\xe9\n", MAIN.as_bytes()].concat())).await;
        world.apply(from_file_session()).await;
        let is_refused = |world: &World| {
            let conditions = world.get("aigisesessions", "demo")["status"]["conditions"].clone();
            let is_it = |one: &Value| one["type"] == "ConfigValid" && one["status"] == "False";
            conditions.as_array().is_some_and(|all| all.iter().any(is_it))
        };
        world.until("the file is refused", is_refused).await;
        let (status, reason, message) = condition(&world, "ConfigValid");
        assert_eq!((&*status, &*reason), ("False", "Unparsable"));
        let words = "In the key config.toml of the ConfigMap arvo: line 1, column 8: this is not UTF-8 text";
        assert!(message.starts_with(words), "{message}");
        world.apply(bytes(&[b"\xef\xbb\xbf# a caf\xc3\xa9\r\n", MAIN.as_bytes()].concat())).await;
        world.until("the session is ready", |world| phase(world) == "Ready").await;
    });
}

#[test]
fn what_changes_is_followed() {
    in_fast_time(async {
        let mut world = ready("hunter2").await;
        world.apply(neo4j("hunter3")).await;
        tokio::time::sleep(Duration::from_secs(660)).await;
        assert_eq!(kept(&world), json!({"env.main.PASSWORD": base64("hunter3")}));
        world.apply(file(&MAIN.replace("PASSWORD =", "PASS ="))).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        world.settle().await;
        assert_eq!(kept(&world), json!({"env.main.PASS": base64("hunter3")}), "what is no longer used is not kept");
        assert_eq!(world.get("sandboxes", "demo--main")["spec"]["env"][0]["name"], "PASS");
        // No secret is left in it.
        world.apply(file("[sandbox.sandboxes.main]\nimage = \"a:1\"\n")).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        world.settle().await;
        assert_eq!(world.get("secrets", "demo--config"), Value::Null);
        assert_eq!(phase(&world), "Ready");
    });
}

#[test]
fn a_broken_edit_is_reported_and_what_runs_goes_on_also_after_a_restart() {
    in_fast_time(async {
        let mut world = ready("hunter2").await;
        world.apply(file("[sandbox.sandboxes.main]\nimage = \"${PASSWORD}\"\n")).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        let reported = (
            "False".to_string(),
            "SecretInPlainField".to_string(),
            "In the key config.toml of the ConfigMap arvo: line 2, column 9, sandbox.sandboxes.main.image: everybody could read the secret here; put secrets into `environment`. The session continues unchanged.".to_string(),
        );
        assert_eq!(condition(&world, "ConfigValid"), reported);
        assert_eq!(condition(&world, "Stalled").0, "True");
        assert_eq!(condition(&world, "SandboxesReady").0, "True");
        world.restart();
        world.settle().await;
        assert_eq!(condition(&world, "ConfigValid"), reported);
        // It is as it was to its sandboxes as well.
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "demo--main"}});
        world.delete(pod).await;
        world.settle().await;
        assert_eq!(world.get("pods", "demo--main")["spec"]["containers"][0]["image"], "a:1");
        world.apply(file(MAIN)).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.settle().await;
        assert_eq!(condition(&world, "Ready").0, "True");
    });
}

#[test]
fn a_file_that_could_not_be_read_for_a_while_is_read_when_it_can_be() {
    in_fast_time(async {
        let mut world = World::new();
        let is_file = |seen: &Seen| seen.client.starts_with("operator") && seen.key.plural == "configmaps";
        world.api.fault(3, Effect::code(500), is_file);
        world.apply(file(MAIN)).await;
        world.apply(neo4j("hunter2")).await;
        world.apply(from_file_session()).await;
        world.until("the session is ready", |world| phase(world) == "Ready").await;
        // Nor does a look that fails make what was read wrong.
        world.api.fault(5, Effect::code(500), is_file);
        tokio::time::sleep(Duration::from_secs(400)).await;
        assert_eq!(condition(&world, "ConfigValid").1, "ConfigRead");
        world.apply(file(&MAIN.replace("a:1", "a:2"))).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        world.settle().await;
        assert_eq!(world.get("sandboxes", "demo--main")["spec"]["image"], "a:2");
    });
}

#[test]
fn a_foreign_secret_that_has_the_name_is_never_touched() {
    in_fast_time(async {
        let mut world = World::new();
        let foreign =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo--config"}, "data": {"a": "Yg=="}});
        world.apply(foreign).await;
        world.apply(file(MAIN)).await;
        world.apply(neo4j("hunter2")).await;
        world.apply(from_file_session()).await;
        world.settle().await;
        assert_eq!(condition(&world, "Ready").1, "NameTaken");
        assert_eq!(kept(&world), json!({"a": "Yg=="}));
        assert_eq!(world.get("pods", "demo--main"), Value::Null);
    });
}

#[test]
fn what_a_file_says_of_services_reaches_the_sandboxes() {
    in_fast_time(async {
        let mut world = World::new();
        let text = |port: u16| {
            format!(
                "[sandbox.sandboxes.gdb_mcp]\nimage = \"a:1\"\nmcp_services = [\"gdb_mcp\"]\n[mcp.services.gdb_mcp]\nsse_port = {port}\n"
            )
        };
        world.apply(file(&text(1111))).await;
        world.apply(session(json!({"configFrom": {"configMapKeyRef": {"name": "arvo", "key": "config.toml"}}}))).await;
        world.settle().await;
        assert_eq!(phase(&world), "Ready");
        let url = |world: &World| {
            let sandbox = world.get("sandboxes", "demo--gdb-mcp");
            sandbox["status"]["endpoints"]["gdb_mcp"].as_str().unwrap_or_default().to_string()
        };
        assert!(url(&world).ends_with(":1111/sse"), "{}", url(&world));
        world.apply(file(&text(2222))).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        world.settle().await;
        assert!(url(&world).ends_with(":2222/sse"), "{}", url(&world));
    });
}
