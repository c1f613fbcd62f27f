//! What runs in a sandbox: the helper, the image's own, or a command.

use serde_json::json;

use super::{
    ground::Ground,
    objects::{HOG, ROOT_IMAGE, USER_IMAGE, session},
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_idles_or_runs_what_the_image_or_its_command_says() {
    let ground = Ground::new("entrypoint");
    let command = ["sh", "-c", "trap exit TERM; echo $0 >/tmp/command; sleep 1000000 & wait", "an argument"];
    ground.apply(&session(
        "s",
        json!({"sandboxes": {
            "idle": {"image": ROOT_IMAGE},
            "user": {"image": USER_IMAGE, "entrypoint": "Idle"},
            "image": {"image": ROOT_IMAGE, "entrypoint": "Image"},
            // Without SERVE, the image's ENTRYPOINT does not run its arguments, and waits itself.
            "both": {"image": ROOT_IMAGE, "entrypoint": "ImageThenIdle"},
            "command": {"image": ROOT_IMAGE, "command": command},
        }}),
    ));
    ground.until_ready("asess/s");
    let process_1 = |sandbox: &str| ground.run(sandbox, "tr '\\0' ' ' </proc/1/cmdline");
    for idle in ["s--idle", "s--user"] {
        assert!(process_1(idle).contains("sandboxd idle"), "{}", process_1(idle));
        assert_eq!(ground.run(idle, "ls /tmp"), "", "the image's own entrypoint ran as well");
    }
    assert_eq!(ground.run("s--both", "cat /tmp/own-entrypoint"), "started with: /aigise/sandboxd idle");
    assert_eq!(ground.run("s--image", "cat /tmp/own-entrypoint"), "started with: of the image");
    assert_eq!(ground.run("s--command", "cat /tmp/command"), "an argument");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_template_reaches_the_container() {
    let ground = Ground::new("template");
    ground.apply(&session(
        "s",
        json!({"taskName": "task-1", "sandboxes": {"main": {
            "image": ROOT_IMAGE,
            "workingDir": "/shared",
            "env": [{"name": "OWN", "value": "$(AIGISE_MAIN_HOST):1"}],
            "ports": [{"name": "gdb", "containerPort": 1111}],
            "resources": {"limits": {"memory": "64Mi"}},
            "securityContext": {"readOnlyRootFilesystem": true},
        }}}),
    ));
    ground.until_ready("asess/s");
    let host = format!("main.s.{}.svc", ground.namespace);
    assert_eq!(ground.run("s--main", "pwd; echo $OWN; echo $AIGISE_SESSION"), format!("/shared\n{host}:1\ns"));
    ground.try_run("s--main", "touch /tmp/file").complaint();
    let pod = ground.get("pod/s--main");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["containerPort"], 1111);
    assert_eq!(container["resources"]["limits"]["memory"], "64Mi");
    assert_eq!(pod["metadata"]["labels"]["aigise.dev/task"], "task-1");
    assert_eq!(ground.get("asb/s--main")["status"]["hostname"], host);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_container_over_its_memory_limit_says_so() {
    let ground = Ground::new("memory");
    ground.apply(&session(
        "s",
        json!({"sandboxes": {"main": {
            "image": ROOT_IMAGE,
            "command": HOG,
            "resources": {"limits": {"memory": "64Mi"}},
        }}}),
    ));
    ground.until_out_of_memory("s--main");
}
