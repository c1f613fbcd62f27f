//! What holds whatever happens: random lives of a session, in any order of events, also impossible ones.

use std::collections::BTreeMap;

use aigise_operator::{
    api::{
        AigiseSession, Sandbox,
        condition::{ConditionType, Reason},
        sandbox::SandboxState,
    },
    plan::{When, ownership, pod::Progress, sandbox, session},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::json;

use super::model::{Event, Kind, World, settings};

fn a_session() -> impl Strategy<Value = AigiseSession> {
    let types = proptest::collection::btree_set(prop_oneof!["main", "gdb_mcp", "Gdb.mcp", "fuzz", "stage", "1x"], 0..4);
    let image = prop_oneof![Just("registry.example/a:1"), Just("registry.example/b:1"), Just("")];
    (types, image, proptest::option::of(Just("poc")), prop_oneof![Just("demo"), Just("demo--x")]).prop_map(
        |(types, image, source, name)| {
            let sandboxes: serde_json::Map<_, _> = types.into_iter().map(|t| (t, json!({"image": image}))).collect();
            let sources: Vec<_> = source.into_iter().map(|name| json!({"configMap": {"name": name}})).collect();
            serde_json::from_value(json!({
                "apiVersion": "aigise.dev/v1alpha1",
                "kind": "AigiseSession",
                "metadata": {"name": name},
                "spec": {"sandboxes": sandboxes, "volumes": {"data": {"sources": sources}}},
            }))
            .unwrap()
        },
    )
}

fn an_event() -> impl Strategy<Value = Event> {
    let pod = || {
        prop_oneof![Just("demo--stage"), Just("demo--main"), Just("demo--gdb-mcp"), Just("alone")]
            .prop_map(String::from)
    };
    prop_oneof![
        4 => a_session().prop_map(|session| Event::ApplySession(Box::new(session))),
        1 => Just(Event::ApplySandbox(Box::new(alone()))),
        2 => "[ab]".prop_map(|content| Event::ConfigMap { name: "poc".into(), content }),
        2 => a_foreign_object(),
        1 => prop_oneof!["demo--data", "demo--tools"].prop_map(Event::DeleteClaim),
        1 => proptest::option::of(prop_oneof![Just(Reason::Refused), Just(Reason::Forbidden), Just(Reason::ApiError), Just(Reason::Terminating)]).prop_map(Event::Refuses),
        4 => pod().prop_map(Event::Scheduled),
        2 => pod().prop_map(|pod| Event::Unschedulable { pod, message: "0/1 nodes".into() }),
        2 => pod().prop_map(Event::ImageMissing),
        8 => pod().prop_map(Event::Running),
        8 => Just(Event::Staged { pod: "demo--stage".into(), roots: vec!["fuzz".into()] }),
        2 => Just(Event::StagingFailed { pod: "demo--stage".into(), message: "A source is bad.".into() }),
        2 => (pod(), 0..3).prop_map(|(pod, code)| Event::Exited { pod, code }),
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

fn a_foreign_object() -> impl Strategy<Value = Event> {
    let (pods, claims) = (["demo--stage", "demo--main", "alone"], ["demo--scripts", "demo--data"]);
    let of = |kind, names: Vec<&'static str>| {
        proptest::sample::select(names).prop_map(move |name| Event::Foreign { kind, name: name.into() })
    };
    prop_oneof![
        of(Kind::Pod, pods.to_vec()),
        of(Kind::Claim, claims.to_vec()),
        of(Kind::Service, vec!["demo"]),
        of(Kind::NetworkPolicy, vec!["demo"]),
        of(Kind::Sandbox, vec!["demo--main", "demo--fuzz"]),
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
    assert_eq!(types, full.iter().map(ToString::to_string).collect::<Vec<_>>());
    for condition in conditions {
        assert_eq!(condition.observed_generation, generation);
        assert!(condition.reason.parse::<Reason>().is_ok(), "{}", condition.reason);
        assert!(!condition.message.is_empty());
    }
    let holds = |kind: ConditionType| conditions.iter().any(|c| c.type_ == kind.to_string() && c.status == "True");
    let standard = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled].map(holds);
    assert_eq!(
        standard.iter().filter(|&&holds| holds).count(),
        1,
        "exactly one of Ready, Reconciling and Stalled: {conditions:?}"
    );
}

fn check(world: &World) {
    use ConditionType::{OutOfDate, PodScheduled, Ready, Reconciling, SandboxesReady, Stalled, VolumesReady};
    for (name, live) in &world.sessions {
        let observed = world.observe_session(name);
        let writes = session::plan(&observed, &settings(), world.now);
        assert_eq!(writes, session::plan(&observed, &settings(), world.now), "P1: the same input, the same plan");
        assert!(writes.is_empty() || world.refuses.is_some(), "P2: a world at rest is left alone: {writes:?}");
        let report = session::report(&observed, world.now);
        assert!(report.when == When::Later || !writes.is_empty(), "P2: and has nothing new to say");
        let conditions = &report.status.conditions;
        conditions_are_whole(
            conditions,
            live.metadata.generation,
            &[Ready, Reconciling, Stalled, VolumesReady, SandboxesReady],
        );
    }
    for (name, live) in &world.sandboxes {
        let observed = world.observe_sandbox(name);
        let writes = sandbox::plan(&observed, &settings());
        let retried = world.refuses.is_some()
            || world.pods.get(name).is_some_and(|pod| ownership::controller(&pod.metadata).is_none());
        assert!(writes.is_empty() || retried, "P2: a world at rest is left alone: {writes:?}");
        let report = sandbox::report(&observed, world.now);
        assert!(report.when == When::Later || !writes.is_empty(), "P2: and has nothing new to say");
        let conditions = &report.status.conditions;
        conditions_are_whole(
            conditions,
            live.metadata.generation,
            &[Ready, Reconciling, Stalled, PodScheduled, OutOfDate],
        );
        let ready = sandbox::Stage::of(&observed) == sandbox::Stage::Pod(Progress::Ready);
        assert_eq!(report.status.state == Some(SandboxState::Ready), ready, "state follows the cluster");
    }
    for pod in world.pods.values().filter(|pod| ownership::controller(&pod.metadata).is_some()) {
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false), "{}: no token in any Pod", pod.name_any());
        assert!(spec.containers[0].name.len() <= 63);
        for value in pod.labels().values() {
            let fits = value.len() <= 63 && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            assert!(fits, "P6: {value} is no label value");
        }
    }
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
            let Some(policy) = world.policies[name].spec.as_ref() else { continue };
            let policy = policy.pod_selector.clone().unwrap().match_labels.unwrap();
            for pod in world.pods.values().filter(|pod| ownership::controller(&pod.metadata).is_some()) {
                let is_selected = |labels: &BTreeMap<_, _>| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
                let is_member = pod.name_any().starts_with(&format!("{name}--"));
                prop_assert_eq!(is_selected(&policy), is_member, "the policy holds every Pod: {}", pod.name_any());
                let is_sandbox = is_member && !pod.name_any().ends_with("--stage");
                prop_assert_eq!(is_selected(&selector), is_sandbox, "the name finds the sandboxes: {}", pod.name_any());
            }
        }
    }
}
