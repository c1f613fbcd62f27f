//! A session from the framework's own file.

use serde_json::json;

use super::{
    client::kubectl,
    ground::Ground,
    objects::{ROOT_IMAGE, condition, config_map, message, session, uid},
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_example_of_a_file_becomes_a_session_whose_secret_is_in_the_container_and_in_no_object_but_secrets() {
    let ground = Ground::new("from-toml");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/from-toml");
    ground.kubectl(&["apply", "-k", folder]).text();
    let ready = ground.until_ready("asess/from-toml");
    assert_eq!(ready["status"]["sandboxes"]["summary"], "2/2");
    let valid = condition(&ready, "ConfigValid");
    assert!(valid["message"].as_str().unwrap().contains("sandbox.sandboxes.main.docker_args"), "{valid}");
    // Text stays text, a bool is written as the framework writes it.
    let env = "printenv LEVEL VERBOSE NEO4J_PASSWORD; pwd";
    assert_eq!(ground.run("from-toml--main", env), "0123\nTrue\ncallgraph\n/shared");
    let main = ground.get("asb/from-toml--main");
    assert_eq!(main["spec"]["resources"]["limits"], json!({"cpu": "100m", "memory": "512Mi"}));
    assert_eq!(main["metadata"]["labels"]["aigise.dev/task"], "arvo-1234");

    let everything = ["get", "asess,asb,pods,configmaps,events", "-o", "yaml"];
    let text = ground.kubectl(&everything).text();
    assert!(!text.contains("callgraph") && !text.contains("Y2FsbGdyYXBo"), "the secret is shown");
    let owner = &ground.get("secret/from-toml--config")["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], uid(&ready));
    ground.delete("asess/from-toml");
    ground.until_gone("secret/from-toml--config");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_edit_that_breaks_the_file_is_reported_and_leaves_the_session_as_it_is() {
    let ground = Ground::new("broken-file");
    let from_file = json!({"configFrom": {"configMapKeyRef": {"name": "file", "key": "config.toml"}}});
    ground.apply(&session("s", from_file.clone()));
    let waiting = ground.until_not_ready("asess/s", "ConfigNotFound");
    assert!(message(&waiting).contains("ConfigMap file"), "{}", message(&waiting));
    assert!(ground.names("pvc", "").is_empty(), "something is made of what is not known");

    let file = |main: &str| config_map("file", &[("config.toml", main)]);
    let main = |image: &str| format!("[sandbox.sandboxes.main]\nimage = \"{image}\"\n");
    ground.apply(&file(&main(ROOT_IMAGE)));
    ground.until_ready("asess/s");
    let pod = uid(&ground.get("pod/s--main")).to_string();

    ground.apply(&file(&main("${NOBODY}")));
    // A change of the session has it read at once.
    let mut touched = from_file.clone();
    touched["taskName"] = json!("touched");
    ground.apply(&session("s", touched));
    let broken = ground.until_not_ready("asess/s", "UnknownVariable");
    assert_eq!(condition(&broken, "ConfigValid")["status"], "False");
    assert!(message(&broken).contains("line 2, column 9, sandbox.sandboxes.main.image"), "{}", message(&broken));
    assert_eq!(uid(&ground.get("pod/s--main")), pod, "the sandbox was touched");
    // What goes away comes back as it was.
    ground.delete("asb/s--main");
    ground.until("asb/s--main", "is ready again", |main| main["status"]["state"] == "ready");

    ground.apply(&file(&main(ROOT_IMAGE)));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_file_in_a_secret_keeps_its_environments_in_a_secret() {
    let ground = Ground::new("secret-file");
    let file = format!("[sandbox.sandboxes.main]\nimage = \"{ROOT_IMAGE}\"\nenvironment = {{TOKEN = \"hunter2\"}}\n");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "file"}, "stringData": {"config.toml": file}});
    ground.apply(&secret);
    ground.apply(&session("s", json!({"configFrom": {"secretKeyRef": {"name": "file", "key": "config.toml"}}})));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "echo $TOKEN"), "hunter2");
    let text = ground.kubectl(&["get", "asess,asb,pods,events", "-o", "yaml"]).text();
    assert!(!text.contains("hunter2"), "the secret is shown");
    let logs = kubectl(&["-n", "aigise-system", "logs", "deploy/aigise-operator"]).text();
    assert!(!logs.contains("hunter2"), "the secret is in the log");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_needs_types_or_a_file_and_variables_need_one() {
    let ground = Ground::new("file-rules");
    for (spec, words) in [
        (json!({}), "at least one type is required, here or in configFrom"),
        (json!({"sandboxes": {"main": {"image": "a"}}, "variables": [{"name": "A", "value": "b"}]}), "variables"),
        (json!({"configFrom": {}}), "exactly one of configMapKeyRef and secretKeyRef"),
        (
            json!({"configFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}, "variables": [{"name": "A"}]}),
            "exactly one of value and valueFrom",
        ),
    ] {
        let said = ground.kubectl_reading(&["apply", "--dry-run=server", "-f", "-"], &session("s", spec).to_string());
        assert!(said.code != 0 && said.stderr.contains(words), "{words}: {}{}", said.stdout, said.stderr);
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_entrypoint_that_starts_servers_runs_them_and_variables_without_an_effect_need_no_value() {
    let ground = Ground::new("serves");
    // The ENTRYPOINT of the image starts the server, and then runs its arguments.
    let file = format!(
        "[sandbox]\nmount_host_paths = [\"${{NOBODY}}:/mnt\"]\n[sandbox.sandboxes.main]\nimage = \"{ROOT_IMAGE}\"\n\
         mcp_services = [\"disassembler\"]\nbuild_args.BASE_IMAGE = \"${{NOBODY}}\"\nports = {{\"8002/tcp\" = 1112}}\n\
         environment = {{SERVE = \"8002\"}}\n[mcp.services.disassembler]\nsse_port = 1112\n"
    );
    ground.apply(&config_map("file", &[("config.toml", &file)]));
    ground.apply(&session("s", json!({"configFrom": {"configMapKeyRef": {"name": "file", "key": "config.toml"}}})));
    let ready = ground.until_ready("asess/s");
    let valid = &condition(&ready, "ConfigValid")["message"];
    for key in ["sandbox.mount_host_paths", "sandbox.sandboxes.main.build_args"] {
        assert!(valid.as_str().unwrap().contains(key), "{valid}");
    }
    let url = format!("http://main.s.{}.svc:8002/sse", ground.namespace);
    assert_eq!(ground.get("asb/s--main")["status"]["endpoints"], json!({"disassembler": url}));
    assert_eq!(ground.run("s--main", "cat /tmp/own-entrypoint"), "started with: /aigise/sandboxd idle");
    assert!(ground.run("s--main", "tr '\\0' ' ' </proc/1/cmdline").contains("sandboxd idle"), "it is not process 1");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_file_that_kubectl_stores_as_binary_data_says_where_it_is_not_text() {
    let ground = Ground::new("binary-file");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, b"# a caf\xe9\n[sandbox.sandboxes.main]\nimage = \"a\"\n").unwrap();
    let from_file = format!("--from-file=config.toml={}", path.display());
    ground.kubectl(&["create", "configmap", "file", &from_file]).text();
    ground.apply(&session("s", json!({"configFrom": {"configMapKeyRef": {"name": "file", "key": "config.toml"}}})));
    let refused = ground.until_not_ready("asess/s", "Unparsable");
    assert!(message(&refused).contains("line 1, column 8: this is not UTF-8 text"), "{}", message(&refused));
}
