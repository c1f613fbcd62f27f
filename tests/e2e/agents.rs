//! Agents: what users see of them, and what becomes of them.

use serde_json::{Value, json};

use super::{
    audit,
    chart::CHART,
    client::{OPERATOR, kubectl},
    ground::Ground,
    install::{BackAgain, RELEASE, helm},
    objects::{
        ROOT_IMAGE, agent, condition, config_map, from_config_map, list, message, plain_session, reason, sandbox,
        session, uid,
    },
};

/// Waits until the agent has this status, and gives it.
#[track_caller]
fn until_status(ground: &Ground, name: &str, status: &str) -> Value {
    ground.until(&format!("aag/{name}"), &format!("is {status}"), |seen| {
        seen["status"]["status"] == status && seen["status"]["observedGeneration"] == seen["metadata"]["generation"]
    })
}

/// The names that `kubectl get` prints for a selection by fields.
fn selected(ground: &Ground, fields: &str) -> Vec<String> {
    let names = ground.kubectl(&["get", "aag", "--field-selector", fields, "-o", "name"]).text();
    names.lines().map(|line| line.trim_start_matches("agent.aigise.dev/").to_string()).collect()
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_agent_waits_for_its_session_works_is_paused_and_goes_with_it() {
    let ground = Ground::new("agent");
    ground
        .apply(&agent("triager", json!({"name": "Triage", "creator": "root", "requires": {"sandboxes": ["gdb_mcp"]}})));
    let waiting = until_status(&ground, "triager", "created");
    assert_eq!(reason(&waiting), "SessionNotFound");
    ground.apply(&agent("second", json!({"name": "Triage", "creator": "somebody"})));
    ground.apply(&session(
        "s",
        json!({"sandboxes": {
            "main": {"image": ROOT_IMAGE},
            "gdb_mcp": {"image": ROOT_IMAGE, "init": {"profile": "None"}},
        }}),
    ));
    let active = until_status(&ground, "triager", "active");
    assert_eq!(
        (&active["status"]["session"]["uid"], reason(&active)),
        (&ground.get("asess/s")["metadata"]["uid"], "Ready")
    );
    assert_eq!(ground.get("asb/s--gdb-mcp")["status"]["state"], "ready");
    until_status(&ground, "second", "active");
    ground.until("asess/s", "counts its agents", |seen| {
        seen["status"]["agents"] == json!({"total": 2, "counts": {"active": 2}})
    });

    // They are found by what the framework lists them by.
    assert_eq!(selected(&ground, "spec.session=s"), ["second", "triager"]);
    assert_eq!(selected(&ground, "spec.session=s,spec.creator=root"), ["triager"]);
    ground.patch("aag/second", &json!({"spec": {"desiredStatus": "paused"}}));
    let paused = until_status(&ground, "second", "paused");
    assert_eq!(condition(&paused, "Suspended")["reason"], "Paused");
    assert!(condition(&paused, "Ready").is_null(), "it is as it was wanted to be");
    assert_eq!(selected(&ground, "status.status=paused"), ["second"]);
    assert_eq!(selected(&ground, "status.status=active"), ["triager"]);

    // A program that runs it says how it is, in a condition of its own.
    let health = |status: &str| {
        let said = json!({
            "type": "RuntimeHealthy", "status": status, "reason": "Model", "message": "the model does not answer",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let status = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "triager"}, "status": {"conditions": [said]}});
        let arguments = ["apply", "--server-side", "--subresource=status", "--field-manager=runtime", "-f", "-"];
        ground.kubectl_reading(&arguments, &status.to_string()).text();
    };
    health("False");
    let failed = until_status(&ground, "triager", "error");
    assert!(message(&failed).contains("the model does not answer"), "{}", message(&failed));
    assert_eq!(condition(&failed, "RuntimeHealthy")["status"], "False", "it is not written over");
    health("True");
    until_status(&ground, "triager", "active");

    let moved = ground.kubectl(&["patch", "aag/second", "--type", "merge", "-p", r#"{"spec":{"session":"t"}}"#]);
    assert!(moved.complaint().contains("session cannot change"));
    ground.delete("asess/s");
    ground.until_gone("aag/triager");
    ground.until_gone("aag/second");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_agent_that_is_paused_while_its_sandboxes_start_does_not_begin() {
    let ground = Ground::new("agent-pause");
    ground.apply(&list(&[agent("a", json!({})), agent("b", json!({})), plain_session("s", &["main"])]));
    ground.patch("aag/a", &json!({"spec": {"desiredStatus": "paused"}}));
    until_status(&ground, "a", "paused");
    let begun = until_status(&ground, "b", "active");
    assert_eq!(ground.get("aag/a")["status"]["status"], "paused");
    ground.patch("aag/a", &json!({"spec": {"desiredStatus": "active"}}));
    until_status(&ground, "a", "active");

    // It follows its session: what is suspended has no agent at work.
    ground.patch("asess/s", &json!({"spec": {"suspend": true}}));
    let waiting = until_status(&ground, "b", "created");
    assert_eq!(condition(&waiting, "Suspended")["reason"], "Suspended");
    ground.patch("asess/s", &json!({"spec": {"suspend": false}}));
    let again = until_status(&ground, "b", "active");
    assert!(again["status"]["updatedAt"].as_str() >= begun["status"]["updatedAt"].as_str());
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_is_started_when_the_first_agent_needs_it_and_stays() {
    let ground = Ground::new("on-demand");
    let spec = json!({
        "launch": {"mode": "OnDemand"},
        "sandboxDefaults": {"image": ROOT_IMAGE, "init": {"profile": "None"}},
        "sandboxes": {"main": {}, "gdb_mcp": {}, "fuzz": {}},
    });
    ground.apply(&session("s", spec));
    let ready = ground.until_ready("asess/s");
    assert_eq!(ready["status"]["sandboxes"]["summary"], "1/1");
    ground.apply(&agent("a", json!({"requires": {"sandboxes": ["gdb_mcp"]}})));
    until_status(&ground, "a", "active");
    assert_eq!(ground.names("asb", ""), ["s--gdb-mcp", "s--main"]);
    // The one that was there first finds it by its name.
    let main = ground.get("pod/s--main");
    assert_eq!(ground.run("s--main", "echo $AIGISE_GDB_MCP_HOST"), format!("gdb-mcp.s.{}.svc", ground.namespace));
    ground.delete("aag/a");
    ground.until("asess/s", "has no agents", |seen| seen["status"]["agents"].is_null());
    ground.until_ready("asess/s");
    assert_eq!(ground.names("asb", ""), ["s--gdb-mcp", "s--main"], "it never shrinks by itself");
    assert_eq!(uid(&ground.get("pod/s--main")), uid(&main));
    // What nobody has is reported, and is in nobody's way.
    ground.apply(&agent("lost", json!({"requires": {"sandboxes": ["joern"]}})));
    let lost = until_status(&ground, "lost", "error");
    assert!(message(&lost).contains("no sandbox of the type joern"), "{}", message(&lost));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_agent_has_the_tools_and_skills_that_its_session_has() {
    let ground = Ground::new("agent-tools");
    let text = |name: &str| {
        config_map(name, &[("SKILL.md", &format!("---\nname: {name}\ndescription: a test\n---\n# {name}\n"))])
    };
    let spec = json!({
        "sandboxes": {"main": {"image": ROOT_IMAGE}},
        "tools": ["view_file"],
        "toolsTopRoots": ["fuzz"],
        "enabledSkills": ["fuzz"],
        "volumes": {"tools": {"sources": [from_config_map("run", "fuzz/run"), from_config_map("report", "coverage/report")]}},
    });
    ground.apply(&list(&[text("run"), text("report"), session("s", spec)]));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "ls /bash_tools"), "fuzz");
    ground.run("s--main", "echo mine >/bash_tools/fuzz/mine");

    let config = json!({"model": "inherit", "toolNames": ["view_file", "complain", "search"], "enabledSkills": ["coverage/report"], "temperature": 0.5});
    ground.apply(&agent("a", json!({"config": config})));
    let pending = until_status(&ground, "a", "pending_tools");
    assert_eq!(pending["spec"]["config"]["temperature"], 0.5, "what is not known is kept");
    assert!(message(&pending).contains("the tool search, the skill coverage/report"), "{}", message(&pending));
    ground
        .patch("asess/s", &json!({"spec": {"tools": ["view_file", "search"], "enabledSkills": ["fuzz", "coverage"]}}));
    until_status(&ground, "a", "active");
    // Its skill is there, and what was there is as it was.
    assert_eq!(ground.run("s--main", "ls /bash_tools; cat /bash_tools/fuzz/mine"), "coverage\nfuzz\nmine");
    let tools = &ground.get("asess/s")["status"]["volumes"]["tools"];
    assert_eq!(tools["skills"], json!(["coverage/report", "fuzz/run"]));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn agents_below_an_agent_go_or_stay_as_they_say() {
    let ground = Ground::new("agent-tree");
    ground.apply(&plain_session("s", &["main"]));
    ground.apply(&agent("child", json!({"parent": "root", "onParentDeleted": "Delete"})));
    let waiting = until_status(&ground, "child", "created");
    assert_eq!(condition(&waiting, "ParentFound")["reason"], "ParentNotFound");
    ground.apply(&agent("root", json!({})));
    until_status(&ground, "child", "active");
    ground.apply(&agent("stays", json!({"parent": "root"})));
    ground.until("aag/root", "has two children", |seen| {
        seen["status"]["children"] == json!({"total": 2, "names": ["child", "stays"]})
    });
    // A circle is refused by everybody in it, and over when it is fixed.
    ground.patch("aag/root", &json!({"spec": {"parent": "child"}}));
    let circle = until_status(&ground, "root", "error");
    assert!(message(&circle).contains("root → child → root"), "{}", message(&circle));
    until_status(&ground, "child", "error");
    ground.patch("aag/root", &json!({"spec": {"parent": null}}));
    until_status(&ground, "root", "active");
    until_status(&ground, "child", "active");

    ground.delete("aag/root");
    ground.until_gone("aag/child");
    let orphan =
        ground.until("aag/stays", "has lost its parent", |seen| condition(seen, "ParentFound")["status"] == "False");
    assert_eq!(
        (&orphan["status"]["status"], condition(&orphan, "ParentFound")["reason"].as_str()),
        (&json!("active"), Some("ParentGone"))
    );

    // A session that leaves its things behind leaves its agents, too.
    ground.patch("asess/s", &json!({"spec": {"autoCleanup": false}}));
    ground.until("aag/stays", "knows of it", |seen| seen["status"]["session"]["autoCleanup"] == false);
    ground.delete("asess/s");
    let left = until_status(&ground, "stays", "stopped");
    assert_eq!(condition(&left, "Suspended")["reason"], "SessionNotFound");
}

/// A program that prints what it sees, and then does what `/tmp/then` says.
fn program() -> Value {
    let script = "cat $AIGISE_CONFIG; echo agent=$AIGISE_AGENT host=$AIGISE_MAIN_HOST key=$AIGISE_MAIN_API_KEY; \
        while [ ! -e /tmp/then ]; do sleep 0.2; done; exit $(cat /tmp/then)";
    json!({"image": ROOT_IMAGE, "command": ["sh", "-c", script], "resources": {"requests": {"cpu": "10m"}}})
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_runner_has_the_configuration_fails_is_paused_goes_on_and_ends() {
    let ground = Ground::new("runner");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"main": "sesame"}});
    let spec = json!({
        "sandboxes": {"main": {"image": ROOT_IMAGE, "env": [{"name": "LEVEL", "value": "0123"}]}},
        "mcpServices": {"gdb": {"sandbox": "main", "port": 1111}},
        "models": {"main": {"modelName": "openai/gpt-5", "apiKeySecretRef": {"name": "keys", "key": "main"}}},
    });
    let with = |restart: Value| {
        let mut runner = program();
        runner["restart"] = restart;
        agent("triager", json!({"runner": runner}))
    };
    ground.apply(&list(&[secret, with(json!({"limit": 1})), session("s", spec)]));
    let active = until_status(&ground, "triager", "active");
    let pod = active["status"]["podName"].as_str().unwrap().to_string();
    assert!(pod.starts_with("s--agent-"), "{pod}");
    let host = format!("main.s.{}.svc", ground.namespace);
    let said = ground.until_log(&pod, "agent=");
    for expected in [
        "image = \"localhost/aigise-e2e:dev\"".to_string(),
        "LEVEL = \"0123\"".into(),
        "model_name = \"openai/gpt-5\"".into(),
        format!("sse_host = \"{host}\""),
        format!("agent=triager host={host} key=sesame"),
    ] {
        assert!(said.contains(&expected), "{expected} is not in {said}");
    }
    let live = ground.get(&format!("pod/{pod}"));
    let mounts = live["spec"]["containers"][0]["volumeMounts"].to_string();
    assert!(!mounts.contains("/shared") && !mounts.contains("serviceaccount"), "{mounts}");

    // It fails once, and again: it is started once.
    ground.run(&pod, "echo 3 >/tmp/then");
    ground.until("aag/triager", "has failed", |seen| seen["status"]["exitCode"] == 3);
    until_status(&ground, "triager", "active");
    ground.run(&pod, "echo 4 >/tmp/then");
    let failed = until_status(&ground, "triager", "error");
    assert_eq!((reason(&failed), &failed["status"]["exitCode"]), ("RunnerFailed", &json!(4)));
    assert!(message(&failed).contains("exit code 4"), "{}", message(&failed));

    // It is paused, and goes on with a new Pod.
    ground.patch("aag/triager", &json!({"spec": {"desiredStatus": "paused"}}));
    until_status(&ground, "triager", "paused");
    ground.until_gone(&format!("pod/{pod}"));
    ground.patch("aag/triager", &json!({"spec": {"desiredStatus": "active"}}));
    until_status(&ground, "triager", "active");
    ground.run(&pod, "echo 0 >/tmp/then");
    let ended = until_status(&ground, "triager", "stopped");
    assert_eq!(
        (condition(&ended, "Suspended")["reason"].as_str(), &ended["status"]["exitCode"]),
        (Some("Finished"), &json!(0))
    );

    // Nobody has let it into the sandboxes of its session, and it says so.
    ground.patch("aag/triager", &json!({"spec": {"runner": {"sandboxExec": true}}}));
    let refused = until_status(&ground, "triager", "error");
    assert_eq!(reason(&refused), "Forbidden");
    assert!(message(&refused).contains("agents.runnerExec"), "{}", message(&refused));
    ground.delete("asess/s");
    ground.until_gone("aag/triager");
    ground.until_gone(&format!("pod/{pod}"));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_runner_may_run_commands_in_the_sandboxes_of_its_session_and_in_no_others() {
    let ground = Ground::new("runner-exec");
    let _alone = audit::operator_may_go();
    let _back = BackAgain::when_dropped();
    helm(&["upgrade", RELEASE, CHART, "-n", OPERATOR.0, "--reuse-values", "--set", "agents.runnerExec=true"]).text();
    kubectl(&["-n", OPERATOR.0, "rollout", "status", OPERATOR.1, "--timeout", "120s"]).text();

    let mut runner = program();
    runner["sandboxExec"] = json!(true);
    ground.apply(&list(&[
        plain_session("s", &["main"]),
        plain_session("other", &["main"]),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs"}, "spec": {"containers": [{"name": "c", "image": ROOT_IMAGE}]}}),
        sandbox("theirs", json!({"session": "s", "type": "x", "image": ROOT_IMAGE, "suspend": true})),
        agent("root", json!({"runner": runner})),
    ]));
    let pod = until_status(&ground, "root", "active")["status"]["podName"].as_str().unwrap().to_string();
    ground.until_ready("asess/other");
    // kubectl itself, in the Pod.
    Ground::run_here(&format!(
        "kubectl -n {} exec -i {pod} -c sandbox -- sh -c 'cat >/tmp/kubectl && chmod +x /tmp/kubectl' <\"$(command -v kubectl)\"",
        ground.namespace
    ));
    let inside = |command: &str| ground.try_run(&pod, &format!("/tmp/kubectl {command}"));
    assert_eq!(inside("exec s--main -- sh -c 'echo in $AIGISE_SANDBOX_TYPE'").text().trim(), "in main");
    for forbidden in [
        "exec other--main -- true".to_string(),
        "exec theirs -- true".into(),
        format!("exec {pod} -- true"),
        "get pods".into(),
        "get secret s--config".into(),
        "delete pod s--main".into(),
        "-n default get pods".into(),
    ] {
        let complaint = inside(&forbidden).complaint();
        assert!(complaint.contains("forbidden"), "{forbidden}: {complaint}");
    }
    // One that is added can be worked in as well.
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"fuzz": {"image": ROOT_IMAGE}}}}));
    ground.until("role/s--exec", "names the new one", |role| role["rules"].to_string().contains("s--fuzz"));
    ground.until_ready("asb/s--fuzz");
    assert_eq!(inside("exec s--fuzz -- echo there").text().trim(), "there");

    // Its exec access goes when it is no longer requested, and a Pod without a token follows.
    let grant = [
        "role/s--exec".to_string(),
        format!("rolebinding/{pod}"),
        format!("networkpolicy/{pod}"),
        format!("serviceaccount/{pod}"),
    ];
    let before = ground.get(&format!("pod/{pod}"));
    ground.patch("aag/root", &json!({"spec": {"runner": {"sandboxExec": false}}}));
    for object in &grant {
        ground.until_gone(object);
    }
    let after = ground.until(&format!("pod/{pod}"), "is made anew", |pod| !pod.is_null() && uid(pod) != uid(&before));
    assert_eq!(after["spec"]["automountServiceAccountToken"], false);
    until_status(&ground, "root", "active");

    // And it goes with its agent.
    ground.patch("aag/root", &json!({"spec": {"runner": {"sandboxExec": true}}}));
    for object in &grant {
        ground.until(object, "is there again", |seen| !seen.is_null());
    }
    ground.delete("aag/root");
    for object in grant.iter().chain([&format!("pod/{pod}")]) {
        ground.until_gone(object);
    }
}

/// Whatever was said to end it, and whatever the operator may still do.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_exec_access_of_an_agent_goes_with_its_sandbox() {
    let ground = Ground::new("exec-ends");
    let _alone = audit::operator_may_go();
    let _back = BackAgain::when_dropped();
    let allow_exec = |it_is: bool| {
        let value = format!("agents.runnerExec={it_is}");
        helm(&["upgrade", RELEASE, CHART, "-n", OPERATOR.0, "--reuse-values", "--set", &value]).text();
        kubectl(&["-n", OPERATOR.0, "rollout", "status", OPERATOR.1, "--timeout", "120s"]).text();
    };
    allow_exec(true);
    let mut runner = program();
    runner["sandboxExec"] = json!(true);
    let mut open = plain_session("open", &["main"]);
    open["spec"]["network"] = json!({"policy": "Unmanaged"});
    let of = |name: &str, session: &str| {
        let mut agent = agent(name, json!({"runner": runner}));
        agent["spec"]["session"] = json!(session);
        agent
    };
    ground.apply(&list(&[
        plain_session("s", &["main"]),
        open,
        of("none", "s"),
        of("stopped", "s"),
        of("open", "open"),
        of("stays", "s"),
    ]));
    let pods = ["none", "stopped", "open", "stays"]
        .map(|name| until_status(&ground, name, "active")["status"]["podName"].as_str().unwrap().to_string());
    let [none, stopped, open, stays] = &pods;
    ground.patch("aag/none", &json!({"spec": {"runner": null}}));
    ground.patch("aag/stopped", &json!({"spec": {"desiredStatus": "stopped"}}));
    ground.patch("aag/open", &json!({"spec": {"runner": {"sandboxExec": false}}}));
    for pod in [none, stopped, open] {
        for kind in ["rolebinding", "serviceaccount"] {
            ground.until_gone(&format!("{kind}/{pod}"));
        }
    }
    ground.until_gone("role/open--exec");
    for object in ["role/s--exec".to_string(), format!("rolebinding/{stays}"), format!("serviceaccount/{stays}")] {
        assert!(!ground.get(&object).is_null(), "{object} is still asked for");
    }

    // The operator loses the right to make or delete any of it.
    allow_exec(false);
    for object in ["role/s--exec".to_string(), format!("rolebinding/{stays}"), format!("serviceaccount/{stays}")] {
        ground.until_gone(&object);
    }
    let refused = until_status(&ground, "stays", "error");
    assert!(message(&refused).contains("agents.runnerExec"), "{}", message(&refused));
}
