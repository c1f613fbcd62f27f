//! What holds whatever happens: random lives of a session, in any order of events, also impossible ones.
//!
//! The numbers are those of the list of properties that the plan is held to. P9, that the caps of a session hold at every step, is
//! not among the tests: the operator has no budget of its own to hand out. How much a session may have is bounded by its schema, and
//! what it may use by quotas and the scheduler, which count for themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aigise_operator::{
    api::{
        Agent, AigiseSession, Sandbox,
        agent::AgentState,
        condition::{ConditionType, Reason},
        sandbox::SandboxState,
    },
    plan::{
        ChildState, Decide, Failure, Lookup, StatusWrite, Write, agent, ownership,
        pod::Progress,
        sandbox::{self, Attachment},
        session::{self, ConfigMapContent},
    },
    protocol,
};
use k8s_openapi::{
    api::networking::v1::NetworkPolicy,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
};
use kube::{Resource, ResourceExt};
use proptest::prelude::*;
use serde_json::json;

use super::model::{Event, Kind, World, planned, reported};

/// What a session may say besides its types, image and source, each now and then.
fn a_request() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"suspend": true})),
        1 => Just(json!({"autoCleanup": false})),
        1 => Just(json!({"continueOnError": true})),
        1 => Just(json!({"launch": {"types": ["main"]}})),
        1 => Just(json!({"launch": {"mode": "OnDemand"}})),
        1 => Just(json!({"tools": ["view_file"], "toolsTopRoots": ["fuzz"], "enabledSkills": ["all"]})),
        1 => Just(json!({"lifetime": {"ttl": "200s"}})),
        1 => Just(json!({"lifetime": {"ttl": "200s", "onExpiry": "Delete"}})),
        1 => Just(json!({"lifetime": {"idle": "90s"}})),
        1 => Just(json!({"lifetime": {"idle": "0s"}})),
        1 => Just(json!({"network": {"policy": "Unmanaged"}})),
        1 => Just(json!({"network": {"egress": "Any", "allowIngress": [{"from": [{"podSelector": {}}]}]}})),
        1 => Just(json!({"sandboxDefaults": {"restart": {"policy": "Never"}}})),
        1 => Just(json!({"sandboxDefaults": {"restart": {"policy": "OnFailure", "limit": 1}}})),
        1 => Just(json!({"sandboxDefaults": {"updatePolicy": "Recreate"}})),
        1 => Just(json!({"sandboxDefaults": {"dependsOn": ["main"]}})),
        2 => Just(json!({"sandboxDefaults": {"init": {"steps": [{"name": "s", "command": ["true"]}], "timeout": "60s"}}})),
        1 => Just(json!({"sandboxDefaults": {"init": {"steps": [{"name": "s", "command": ["true"]}], "skip": true}}})),
        3 => (proptest::sample::select(vec!["Whole", "Partial", "Required", "Never"]), proptest::sample::select(vec!["Data", "Auto"])).prop_map(|(restore, root)| json!({
            "cache": {"key": "k", "restore": restore},
            "sandboxes": {"main": {"image": "registry.example/a:1", "cache": {"root": root}, "init": {"steps": [{"name": "s", "command": ["true"]}]}}},
        })),
        1 => Just(json!({"cache": {"key": "k", "save": "Never"}, "sandboxes": {"main": {"image": "registry.example/b:1"}}})),
        1 => Just(json!({"volumes": {"data": {"reclaim": "Retain", "size": "2Gi"}}})),
        1 => Just(json!({"volumes": {"scripts": {"claimName": "demo--data"}}})),
        1 => Just(json!({"volumes": {"scripts": {"claimName": "theirs"}}})),
        2 => Just(json!({"volumes": {"layout": "Single", "data": {"sources": [{"configMap": {"name": "poc"}}]}}})),
        1 => Just(json!({"volumes": {"layout": "Single", "data": {"reclaim": "Retain"}}})),
        1 => Just(json!({"volumes": {"tools": {"sources": [{"image": {"reference": "registry.example/tools:1"}}]}}})),
        2 => proptest::sample::select(vec!["SessionOnly", "Any"]).prop_map(|egress| json!({
            "network": {"egress": egress},
            "volumes": {"data": {"sources": [{"container": {"image": "registry.example/git:1", "command": ["fetch"]}}]}},
        })),
    ]
}

fn a_session() -> impl Strategy<Value = AigiseSession> {
    let types = proptest::collection::btree_set(prop_oneof!["main", "gdb_mcp", "Gdb.mcp", "fuzz", "stage", "1x"], 0..4);
    let image = prop_oneof![Just("registry.example/a:1"), Just("registry.example/b:1"), Just("")];
    let name = prop_oneof![8 => Just("demo"), 1 => Just("demo--x")];
    (types, image, proptest::option::of(Just("poc")), name, a_request()).prop_map(
        |(types, image, source, name, request)| {
            let sandboxes: serde_json::Map<_, _> = types.into_iter().map(|t| (t, json!({"image": image}))).collect();
            let sources: Vec<_> = source.into_iter().map(|name| json!({"configMap": {"name": name}})).collect();
            let mut spec = json!({"sandboxes": sandboxes, "volumes": {"data": {"sources": sources}}});
            spec.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
            serde_json::from_value(json!({
                "apiVersion": "aigise.dev/v1alpha1",
                "kind": "AigiseSession",
                "metadata": {"name": name},
                "spec": spec,
            }))
            .unwrap()
        },
    )
}

/// A sandbox made by hand: alone, in the session, or attached to a Pod.
fn a_sandbox() -> impl Strategy<Value = Sandbox> {
    let spec = prop_oneof![
        Just(json!({"type": "main", "image": "registry.example/a:1"})),
        Just(json!({"type": "main", "image": "registry.example/a:1", "suspend": true})),
        Just(json!({"type": "extra", "image": "registry.example/a:1", "session": "demo"})),
        Just(json!({"type": "main", "image": "registry.example/a:1", "session": "demo"})),
        Just(json!({"type": "main", "attach": {"podName": "theirs"}})),
        Just(json!({"type": "extra", "image": "registry.example/a:1", "session": "demo", "dependsOn": ["main"]})),
    ];
    (prop_oneof!["alone", "second"], spec).prop_map(|(name, spec)| {
        serde_json::from_value(json!({
            "apiVersion": "aigise.dev/v1alpha1",
            "kind": "Sandbox",
            "metadata": {"name": name},
            "spec": spec,
        }))
        .unwrap()
    })
}

/// An agent of the session, or of another, anywhere in a tree.
fn an_agent() -> impl Strategy<Value = Agent> {
    let name = || prop_oneof!["root", "child", "leaf"];
    let request = prop_oneof![
        3 => Just(json!({})),
        1 => Just(json!({"desiredStatus": "paused"})),
        1 => Just(json!({"desiredStatus": "stopped"})),
        1 => Just(json!({"requires": {"sandboxes": ["fuzz", "gdb_mcp"]}})),
        1 => Just(json!({"config": {"toolNames": ["search"], "enabledSkills": ["fuzz/run"]}})),
        2 => Just(json!({"runner": {"image": "registry.example/agent:1", "sandboxExec": true}})),
        1 => Just(json!({"runner": {"image": "registry.example/agent:1", "command": ["run"]}})),
        1 => Just(json!({"runner": {"image": ""}})),
        1 => Just(json!({"session": "other"})),
    ];
    let parent = proptest::option::of(name());
    (name(), parent, any::<bool>(), request).prop_map(|(name, parent, goes, request)| {
        let mut spec = json!({"session": "demo", "parent": parent});
        spec.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        if goes {
            spec["onParentDeleted"] = json!("Delete");
        }
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    })
}

fn an_annotation() -> impl Strategy<Value = Event> {
    let (key, of) = (prop_oneof!["aigise.dev/restart", "aigise.dev/last-activity"], any::<bool>());
    let value = prop_oneof!["2026-01-01T00:01:00Z", "2026-01-01T00:05:00Z", "soon"];
    (key, of, value).prop_map(|(key, of, value)| Event::Annotate {
        session: of.then(|| "demo".into()),
        sandbox: (!of).then(|| "demo--main".into()),
        key,
        value,
    })
}

fn an_event() -> impl Strategy<Value = Event> {
    let pod = || {
        prop_oneof![
            Just("demo--stage"),
            Just("demo--pull"),
            Just("demo--save"),
            Just("demo--restore"),
            Just("demo--main"),
            Just("demo--gdb-mcp"),
            Just("alone"),
            Just(RUNNER_OF_ROOT)
        ]
        .prop_map(String::from)
    };
    prop_oneof![
        4 => a_session().prop_map(|session| Event::ApplySession(Box::new(session))),
        2 => a_sandbox().prop_map(|sandbox| Event::ApplySandbox(Box::new(sandbox))),
        2 => an_annotation(),
        3 => an_agent().prop_map(|agent| Event::ApplyAgent(Box::new(agent))),
        1 => prop_oneof!["root", "child"].prop_map(Event::DeleteAgent),
        1 => any::<bool>().prop_map(|healthy| Event::AgentSays { agent: "root".into(), healthy, message: "m".into() }),
        1 => proptest::option::of(prop_oneof!["demo", "alone"]).prop_map(|attachable| Event::MakePod { name: "theirs".into(), attachable }),
        1 => pod().prop_map(Event::NodeSilent),
        2 => "[ab]".prop_map(|content| Event::ConfigMap { name: "poc".into(), content }),
        2 => a_foreign_object(),
        1 => prop_oneof!["demo--data", "demo--tools"].prop_map(Event::DeleteClaim),
        1 => proptest::option::of(prop_oneof![Just(Reason::Refused), Just(Reason::Forbidden), Just(Reason::ApiError), Just(Reason::Terminating)]).prop_map(Event::Refuses),
        4 => pod().prop_map(Event::Scheduled),
        2 => pod().prop_map(|pod| Event::Unschedulable { pod, message: "0/1 nodes".into() }),
        2 => pod().prop_map(Event::ImageMissing),
        8 => pod().prop_map(Event::Running),
        4 => pod().prop_map(Event::Initializes),
        1 => pod().prop_map(|pod| Event::InitFailed { pod, failure: protocol::init::InitFailure { step: Some("s".into()), how: "failed".into(), ..protocol::init::InitFailure::default() } }),
        8 => Just(Event::Staged { pod: "demo--stage".into(), roots: vec!["fuzz".into()] }),
        2 => Just(Event::StagingFailed { pod: "demo--stage".into(), message: "A source is bad.".into(), fault: protocol::staging::Fault::Source }),
        4 => Just(Event::Saved("demo--save".into())),
        1 => Just(Event::SaveFailed { pod: "demo--save".into(), reason: protocol::cache::SaveFault::NoSpace, message: "It is full.".into() }),
        4 => Just(Event::Restored("demo--restore".into())),
        1 => Just(Event::RestoredWithout { pod: "demo--restore".into(), labels: vec!["main".into()] }),
        1 => Just(Event::SavedWithout { pod: "demo--save".into(), labels: vec!["main".into()] }),
        2 => pod().prop_map(|pod| Event::InitFailed { pod, failure: protocol::init::InitFailure { how: "failed".into(), restore: Some(protocol::cache::RestoreFault::ImageChanged), ..protocol::init::InitFailure::default() } }),
        1 => pod().prop_map(|pod| Event::NotPacked { pod, reason: protocol::cache::SaveFault::SecretFound, message: "It is in a file.".into() }),
        2 => proptest::sample::select(vec![protocol::cache::RestoreFault::Corrupt, protocol::cache::RestoreFault::NoSpace])
            .prop_map(|fault| Event::RestoreFailed { pod: "demo--restore".into(), fault, message: "It failed.".into() }),
        2 => (pod(), 0..3).prop_map(|(pod, code)| Event::Exited { pod, code, after: 1 }),
        2 => pod().prop_map(Event::OutOfMemory),
        2 => pod().prop_map(Event::Evicted),
        2 => pod().prop_map(Event::DeletePod),
        4 => pod().prop_map(Event::PodGone),
        1 => pod().prop_map(Event::DeleteSandbox),
        1 => Just(Event::DeleteSession("demo".into())),
        2 => (0u32..100).prop_map(Event::After),
        1 => Just(Event::Restart),
    ]
}

/// The Sandbox and the Pod that run the agent `root`.
const RUNNER_OF_ROOT: &str = "demo--agent-956e6e33fe8b";

fn a_foreign_object() -> impl Strategy<Value = Event> {
    let (pods, claims) = (["demo--stage", "demo--main", "alone"], ["demo--scripts", "demo--data"]);
    let of = |kind, names: Vec<&'static str>| {
        proptest::sample::select(names).prop_map(move |name| Event::Foreign { kind, name: name.into() })
    };
    prop_oneof![
        of(Kind::Pod, pods.to_vec()),
        of(Kind::Claim, claims.to_vec()),
        of(Kind::Service, vec!["demo"]),
        of(Kind::NetworkPolicy, vec!["demo", "demo--stage"]),
        of(Kind::Sandbox, vec!["demo--main", "demo--fuzz", RUNNER_OF_ROOT]),
    ]
}

fn alone() -> Sandbox {
    serde_json::from_value(json!({
        "apiVersion": "aigise.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": {"name": "alone"},
        "spec": {"type": "main", "image": "registry.example/a:1"},
    }))
    .unwrap()
}

/// P7: the full set, each with the present generation, a known reason and a sentence.
fn conditions_are_whole(conditions: &[Condition], generation: Option<i64>, full: &[ConditionType]) {
    let types: Vec<_> = conditions.iter().map(|condition| condition.type_.clone()).collect();
    let is_inactive = !types.contains(&ConditionType::Ready.to_string());
    let full = full.iter().filter(|kind| !is_inactive || **kind != ConditionType::Ready);
    assert_eq!(types, full.map(ToString::to_string).collect::<Vec<_>>());
    for condition in conditions {
        assert_eq!(condition.observed_generation, generation);
        assert!(condition.reason.parse::<Reason>().is_ok(), "{}", condition.reason);
        assert!(!condition.message.is_empty());
    }
    let holds = |kind: ConditionType| conditions.iter().any(|c| c.type_ == kind.to_string() && c.status == "True");
    let standard = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled].map(holds);
    assert_eq!(
        standard.iter().filter(|&&holds| holds).count(),
        usize::from(!is_inactive),
        "exactly one of Ready, Reconciling and Stalled, and none for an inactive object: {conditions:?}"
    );
}

const OF_A_SESSION: [ConditionType; 10] = {
    use ConditionType::{
        AgentsReady, ConfigValid, Degraded, Expiring, Ready, Reconciling, SandboxesReady, Stalled, Suspended,
        VolumesReady,
    };
    [Ready, Reconciling, Stalled, ConfigValid, VolumesReady, SandboxesReady, AgentsReady, Degraded, Suspended, Expiring]
};

/// One that asks for caches has one more.
fn of_a_session(session: &AigiseSession) -> Vec<ConditionType> {
    let cached = session.spec.cache.as_ref().map(|_| ConditionType::Cached);
    OF_A_SESSION.into_iter().chain(cached).collect()
}

const OF_AN_AGENT: [ConditionType; 7] = {
    use ConditionType::{ParentFound, Ready, Reconciling, SandboxesReady, Stalled, Suspended, ToolsCovered};
    [Ready, Reconciling, Stalled, SandboxesReady, ToolsCovered, ParentFound, Suspended]
};

const OF_A_SANDBOX: [ConditionType; 8] = {
    use ConditionType::{Attached, Initialized, OutOfDate, PodScheduled, Ready, Reconciling, Stalled, Suspended};
    [Ready, Reconciling, Stalled, PodScheduled, Initialized, OutOfDate, Suspended, Attached]
};

fn check(world: &World) {
    for (name, live) in &world.sessions {
        let observed = world.observe_session(name);
        let writes = planned(&observed);
        assert_eq!(writes, planned(&observed), "P1: the same input, the same plan");
        assert!(writes.is_empty() || world.refuses.is_some(), "P2: a settled world is left alone: {writes:?}");
        let report = reported(&observed);
        assert!(report.write == StatusWrite::Skip || !writes.is_empty(), "P2: and has nothing new to say");
        let conditions = &report.status.conditions;
        conditions_are_whole(conditions, live.metadata.generation, &of_a_session(live));
    }
    for (name, live) in &world.sandboxes {
        let observed = world.observe_sandbox(name);
        let writes = planned(&observed);
        let retried = world.refuses.is_some()
            || world.pods.get(name).is_some_and(|pod| ownership::controller(&pod.metadata).is_none());
        assert!(writes.is_empty() || retried, "P2: a settled world is left alone: {writes:?}");
        let report = reported(&observed);
        assert!(report.write == StatusWrite::Skip || !writes.is_empty(), "P2: and has nothing new to say");
        let conditions = &report.status.conditions;
        conditions_are_whole(conditions, live.metadata.generation, &OF_A_SANDBOX);
        let ready = match sandbox::Lifecycle::of(&observed) {
            sandbox::Lifecycle::Pod(progress)
            | sandbox::Lifecycle::Orphaned(progress)
            | sandbox::Lifecycle::Attached(Attachment::To { progress, .. }) => progress == Progress::Ready,
            _ => false,
        };
        assert_eq!(report.status.state == Some(SandboxState::Ready), ready, "state follows the cluster");
    }
    for (name, live) in &world.agents {
        let observed = world.observe_agent(name);
        let writes = planned(&observed);
        assert!(writes.is_empty() || world.refuses.is_some(), "P2: a settled world is left alone: {writes:?}");
        let report = reported(&observed);
        assert!(report.write == StatusWrite::Skip || !writes.is_empty(), "P2: and has nothing new to say");
        conditions_are_whole(&report.status.conditions, live.metadata.generation, &OF_AN_AGENT);
        if report.status.status == Some(AgentState::Paused) && world.refuses.is_none() {
            let own = |sandbox: &Sandbox| ownership::owner_uid(&sandbox.metadata) == live.metadata.uid.as_deref();
            assert!(!world.sandboxes.values().any(own), "who is paused has no Pod");
        }
        if report.status.status == Some(AgentState::Active) {
            assert!(world.sessions.contains_key(&live.spec.session), "who is active has a session");
        }
    }
    no_agent_is_its_own_ancestor(world);
    for pod in world.pods.values().filter(|pod| ownership::controller(&pod.metadata).is_some()) {
        let spec = pod.spec.as_ref().unwrap();
        // But for the one that its user lets into the sandboxes, by an account of its own.
        let may_exec = spec.service_account_name.as_ref() == Some(&pod.name_any());
        assert_eq!(spec.automount_service_account_token, Some(may_exec), "{}: no token in a Pod", pod.name_any());
        assert!(!may_exec || pod.name_any().contains("--agent-"));
        assert!(spec.containers[0].name.len() <= 63);
        for value in pod.labels().values() {
            let fits = value.len() <= 63 && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            assert!(fits, "P6: {value} is no label value");
        }
    }
}

/// In its own words: whoever is found above itself does not work.
fn no_agent_is_its_own_ancestor(world: &World) {
    for (name, live) in &world.agents {
        let mut above = live.spec.parent.as_ref();
        for _ in 0..world.agents.len() {
            let Some(ancestor) = above.and_then(|above| world.agents.get(above)) else { break };
            if ancestor.spec.session != live.spec.session {
                break;
            }
            let status = live.status.as_ref().and_then(|status| status.status);
            assert!(ancestor.name_any() != *name || status != Some(AgentState::Active), "{name} is above itself");
            above = ancestor.spec.parent.as_ref();
        }
    }
}

/// P5: of an object that is being deleted nothing is made any more, and nothing for a session that is.
fn what_goes_makes_nothing(world: &World) {
    let is_going = |metadata: &mut ObjectMeta| metadata.deletion_timestamp = Some(Time(world.now));
    for name in world.sessions.keys() {
        let mut observed = world.observe_session(name);
        is_going(observed.session.meta_mut());
        assert_eq!(planned(&observed), [], "P5: the session {name}");
    }
    for name in world.sandboxes.keys() {
        let mut observed = world.observe_sandbox(name);
        if let Lookup::Found(session) = &mut observed.session {
            is_going(Arc::make_mut(session).meta_mut());
            let writes = made_and_taken_away(&planned(&observed));
            assert!(!writes.iter().any(|write| write.starts_with("make")), "P5: the session of {name}: {writes:?}");
        }
        is_going(&mut Arc::make_mut(&mut observed.sandbox).metadata);
        assert_eq!(planned(&observed), [], "P5: the sandbox {name}");
    }
    for name in world.agents.keys() {
        let mut observed = world.observe_agent(name);
        is_going(&mut Arc::make_mut(&mut observed.agent).metadata);
        assert_eq!(planned(&observed), [], "P5: the agent {name}");
    }
}

/// What a plan makes and what it takes away.
fn made_and_taken_away(writes: &[Write]) -> BTreeSet<String> {
    let named = |verb, write: &Write| format!("{verb} {:?} {}", write.kind(), write.name());
    let words = writes.iter().filter_map(|write| match write {
        Write::Create(_) | Write::Apply(_) => Some(named("make", write)),
        Write::Delete(_) => Some(named("take away", write)),
        Write::Replace(_) | Write::PatchClaim(_) | Write::PatchPod(_) => None,
    });
    words.collect()
}

fn unread() -> Failure {
    Failure { reason: Reason::ApiError, message: "It could not be read.".into() }
}

/// Whoever has a name that is not ours is known, so that there is nothing to be read there.
fn forget<K>(slot: &mut ChildState<K>) {
    if !matches!(slot, ChildState::Foreign(_)) {
        *slot = ChildState::Failed(unread());
    }
}

/// The same, and each time one thing more could not be read.
fn unread_sessions(observed: &session::Observed) -> Vec<session::Observed> {
    let mut all = vec![];
    let mut with = |change: &dyn Fn(&mut session::Observed)| {
        let mut observed = observed.clone();
        change(&mut observed);
        all.push(observed);
    };
    for volume in observed.claims.keys() {
        with(&|observed| observed.claims.get_mut(volume).into_iter().for_each(forget));
    }
    for volume in observed.existing_claims.keys() {
        with(&|observed| _ = observed.existing_claims.insert(*volume, Lookup::Failed(unread())));
    }
    with(&|observed| forget(&mut observed.stage_pod));
    with(&|observed| forget(&mut observed.pull_pod));
    with(&|observed| forget(&mut observed.service));
    with(&|observed| forget(&mut observed.policy));
    with(&|observed| forget(&mut observed.stage_policy));
    with(&|observed| observed.exec.iter_mut().for_each(|exec| forget(&mut exec.role)));
    for name in observed.sandboxes.keys() {
        with(&|observed| observed.sandboxes.get_mut(name).into_iter().for_each(forget));
    }
    for name in observed.config_maps.keys() {
        with(&|observed| _ = observed.config_maps.insert(name.clone(), ConfigMapContent::Unknown(unread())));
    }
    all
}

fn unread_sandboxes(observed: &sandbox::Observed) -> Vec<sandbox::Observed> {
    let mut all = vec![sandbox::Observed { attached: Lookup::Failed(unread()), ..observed.clone() }];
    if observed.session != Lookup::NotNamed {
        all.push(sandbox::Observed { session: Lookup::Failed(unread()), ..observed.clone() });
    }
    let mut without_pod = observed.clone();
    forget(&mut without_pod.pod);
    all.push(without_pod);
    let mut without = |change: fn(&mut sandbox::ExecAccess)| {
        let mut observed = observed.clone();
        observed.exec_access.iter_mut().for_each(change);
        all.push(observed);
    };
    without(|grant| forget(&mut grant.role));
    without(|grant| forget(&mut grant.account));
    without(|grant| forget(&mut grant.binding));
    without(|grant| forget(&mut grant.policy));
    all
}

/// P8: what could not be read makes nothing and takes nothing away that would not be made or taken away otherwise, and everything is
/// still said.
fn what_is_not_read_leads_to_nothing(world: &World) {
    let is_less = |unread: &[Write], read: &[Write]| {
        let (unread, read) = (made_and_taken_away(unread), made_and_taken_away(read));
        assert!(unread.is_subset(&read), "P8: {unread:?} and not {read:?}");
    };
    for (name, live) in &world.sessions {
        let observed = world.observe_session(name);
        let plan = |observed: &session::Observed| [observed.independent_writes(), planned(observed)].concat();
        let writes = plan(&observed);
        for unread in unread_sessions(&observed) {
            is_less(&plan(&unread), &writes);
            let report = reported(&unread);
            let full = of_a_session(live);
            conditions_are_whole(&report.status.conditions, live.metadata.generation, &full);
        }
    }
    for (name, live) in &world.sandboxes {
        let observed = world.observe_sandbox(name);
        let writes = planned(&observed);
        for unread in unread_sandboxes(&observed) {
            is_less(&planned(&unread), &writes);
            let report = reported(&unread);
            conditions_are_whole(&report.status.conditions, live.metadata.generation, &OF_A_SANDBOX);
        }
    }
    for (name, live) in &world.agents {
        let observed = world.observe_agent(name);
        let without_session = agent::Observed { session: Lookup::Failed(unread()), ..observed.clone() };
        let without_parent = agent::Observed { parent: Lookup::Failed(unread()), ..observed.clone() };
        let mut without_runner = observed.clone();
        forget(&mut without_runner.runner);
        for unread in [without_session, without_parent, without_runner] {
            is_less(&planned(&unread), &planned(&observed));
            let report = reported(&unread);
            conditions_are_whole(&report.status.conditions, live.metadata.generation, &OF_AN_AGENT);
        }
    }
}

/// What a policy of ours selects.
fn match_labels(policy: &NetworkPolicy) -> Option<BTreeMap<String, String>> {
    policy.spec.as_ref()?.pod_selector.as_ref()?.match_labels.clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_life_is_survived(events in proptest::collection::vec(an_event(), 1..40)) {
        let mut world = World::new();
        for event in events {
            world.happens(event);
            check(&world);
        }
    }

    /// Before anybody has reacted to the last event, too: a plan is full then.
    #[test]
    fn neither_what_goes_nor_what_is_not_read_leads_to_a_write(
        events in proptest::collection::vec(an_event(), 0..20),
        last in an_event(),
    ) {
        let mut world = World::new();
        for event in events {
            world.happens(event);
        }
        world.change(last);
        what_goes_makes_nothing(&world);
        what_is_not_read_leads_to_nothing(&world);
    }

    /// A selector that does not select what it was made for would leave the sandboxes without names and without a policy.
    #[test]
    fn selectors_select_every_pod_of_the_session_and_no_other(events in proptest::collection::vec(an_event(), 1..30)) {
        let mut world = World::new();
        world.happens(Event::ApplySandbox(Box::new(alone())));
        for event in events {
            world.happens(event);
        }
        let ours = world.services.iter().filter(|(_, service)| ownership::controller(&service.metadata).is_some());
        for (name, service) in ours.filter(|(name, _)| world.policies.contains_key(*name)) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap();
            let Some(policy) = match_labels(&world.policies[name]) else { continue };
            let stage_policy = world.policies.get(&format!("{name}--stage")).and_then(match_labels);
            for pod in world.pods.values().filter(|pod| ownership::controller(&pod.metadata).is_some()) {
                let is_selected = |labels: &BTreeMap<_, _>| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
                let by_hand = world.sandboxes.get(&pod.name_any());
                let is_member = pod.name_any().starts_with(&format!("{name}--"))
                    || by_hand.is_some_and(|sandbox| {
                        let seen = sandbox.status.as_ref().and_then(|status| status.session.as_ref());
                        seen.is_some_and(|seen| Some(&seen.uid) == world.sessions.get(name).and_then(|s| s.metadata.uid.as_ref()))
                    });
                prop_assert_eq!(is_selected(&policy), is_member, "the policy holds every Pod: {}", pod.name_any());
                let is_stage = is_member && pod.name_any().ends_with("--stage");
                let helps = |suffix: &str| pod.name_any().ends_with(suffix);
                let is_sandbox = is_member && !is_stage && !["--pull", "--save", "--restore"].into_iter().any(helps);
                prop_assert_eq!(is_selected(&selector), is_sandbox, "the name finds the sandboxes: {}", pod.name_any());
                if let Some(stage_policy) = &stage_policy {
                    prop_assert_eq!(is_selected(stage_policy), is_stage, "only staging is let out: {}", pod.name_any());
                }
            }
        }
    }
}
