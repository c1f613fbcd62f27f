//! Types of a session that are added, removed and edited while it runs.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, condition, plain_session, uid},
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_type_added_or_removed_leaves_the_others_alone() {
    let ground = Ground::new("types");
    ground.apply(&plain_session("s", &["main", "fuzz"]));
    ground.until_ready("asess/s");
    let before = ground.get("pod/s--main");

    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"gdb_mcp": {"image": ROOT_IMAGE}}}}));
    let grown = ground.until_ready("asess/s");
    assert_eq!(grown["status"]["sandboxes"]["summary"], "3/3");
    assert_eq!(grown["status"]["sandboxes"]["states"]["gdb_mcp"], "ready");
    assert_eq!(ground.run("s--gdb-mcp", "echo $AIGISE_MAIN_HOST"), format!("main.s.{}.svc", ground.namespace));

    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"fuzz": null}}}));
    ground.until_gone("asb/s--fuzz");
    ground.until_gone("pod/s--fuzz");
    let shrunk = ground.until_ready("asess/s");
    assert_eq!(shrunk["status"]["sandboxes"]["summary"], "2/2");
    assert_eq!(shrunk["status"]["sandboxes"]["states"], json!({"gdb_mcp": "ready", "main": "ready"}));

    let after = ground.get("pod/s--main");
    assert_eq!(uid(&after), uid(&before), "the Pod of main was made anew");
    assert_eq!(condition(&ground.get("asb/s--main"), "OutOfDate")["status"], "False");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_edited_type_takes_its_template_at_the_next_start() {
    let ground = Ground::new("edit");
    ground.apply(&plain_session("s", &["main", "fuzz"]));
    ground.until_ready("asess/s");
    let (before, sibling) = (ground.get("pod/s--main"), ground.get("pod/s--fuzz"));

    let edited = json!([{"name": "EDITED", "value": "yes"}]);
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"main": {"env": edited}}}}));
    let out_of_date = |sandbox: &Value| condition(sandbox, "OutOfDate")["status"] == "True";
    let seen = ground.until("asb/s--main", "is out of date", out_of_date);
    assert_eq!(seen["status"]["state"], "ready", "an edit takes a sandbox away from those who work in it");
    assert_eq!(seen["status"]["podUID"], uid(&before));
    assert_eq!(ground.run("s--main", "echo ${EDITED:-no}"), "no");

    ground.delete("pod/s--main");
    let renewed = ground.until("asb/s--main", "is ready with another Pod", |sandbox| {
        sandbox["status"]["state"] == "ready" && sandbox["status"]["podUID"] != before["metadata"]["uid"]
    });
    assert_eq!(condition(&renewed, "OutOfDate")["status"], "False");
    assert_eq!(ground.run("s--main", "echo ${EDITED:-no}"), "yes");
    assert_eq!(uid(&ground.get("pod/s--fuzz")), uid(&sibling), "the sibling was started anew");
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_edited_type_that_is_not_ready_takes_its_template_at_once() {
    let ground = Ground::new("edit-unready");
    ground.apply(&plain_session("s", &["main"]));
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"main": {"image": "localhost/there-is-no:such-image"}}}}));
    ground.until_not_ready("asb/s--main", "ImagePull");
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"main": {"image": ROOT_IMAGE}}}}));
    ground.until_ready("asess/s");
    assert_eq!(condition(&ground.get("asb/s--main"), "OutOfDate")["status"], "False");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_of_a_session_that_is_deleted_by_hand_is_made_anew() {
    let ground = Ground::new("made-anew");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let before = ground.get("asb/s--main");
    ground.delete("asb/s--main");
    ground.until("asb/s--main", "is another one, and ready", |sandbox| {
        sandbox["metadata"]["uid"] != before["metadata"]["uid"] && sandbox["status"]["state"] == "ready"
    });
    ground.until_ready("asess/s");
}
