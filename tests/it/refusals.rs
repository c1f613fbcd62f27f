//! What the API server does not do is not taken for done: it is said, and tried again.

use std::time::Duration;

use aigise_operator::{
    api::{
        AigiseSession, AigiseSessionStatus,
        condition::{ConditionType, Reason},
        sandbox::SandboxPhase,
        session::SessionPhase,
    },
    plan::{
        Applied, ChildState, Created, Decide, Failure, Kind, Outcome, Report, Requeue, Write, facts, session::Observed,
    },
    protocol::init::InitFailure,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::model::{Event, World, planned, reported};

const WORDS: &str = "the API server refused it: not now";

fn a_session(spec: Value) -> Event {
    let session = json!({
        "apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"}, "spec": spec,
    });
    Event::ApplySession(Box::new(serde_json::from_value::<AigiseSession>(session).unwrap()))
}

/// Makes the writes of the plan as far as they come: the API server refuses the chosen ones, and carries out the others.
fn refused(observed: &mut Observed, is_refused: impl Fn(&Write) -> bool) -> Report<AigiseSessionStatus> {
    for write in planned(observed) {
        let refuse = is_refused(&write);
        let name = write.name().to_string();
        let outcome = left(write, refuse.then(|| Failure { reason: Reason::Forbidden, message: WORDS.into() }));
        observed.record(&name, outcome);
        if refuse {
            break;
        }
    }
    reported(observed)
}

fn left(write: Write, failure: Option<Failure>) -> Outcome {
    fn state<K>(object: Box<K>, failure: Option<Failure>) -> ChildState<K> {
        failure.map_or_else(|| ChildState::Owned((*object).into()), ChildState::Failed)
    }
    fn gone<K>(failure: Option<Failure>) -> ChildState<K> {
        failure.map_or(ChildState::Absent, ChildState::Failed)
    }
    match write {
        Write::Create(Created::Claim(claim)) | Write::PatchClaim(claim) => Outcome::Claim(state(claim, failure)),
        Write::Create(Created::Pod(pod)) | Write::PatchPod(pod) => Outcome::Pod(state(pod, failure)),
        Write::Create(Created::Sandbox(sandbox)) | Write::Replace(sandbox) => Outcome::Sandbox(state(sandbox, failure)),
        Write::Apply(Applied::Service(service)) => Outcome::Service(state(service, failure)),
        Write::Apply(Applied::NetworkPolicy(policy)) => Outcome::NetworkPolicy(state(policy, failure)),
        Write::Apply(Applied::Secret(secret)) => Outcome::Secret(state(secret, failure)),
        Write::Apply(Applied::ServiceAccount(account)) => Outcome::ServiceAccount(state(account, failure)),
        Write::Apply(Applied::Role(role)) => Outcome::Role(state(role, failure)),
        Write::Apply(Applied::RoleBinding(binding)) => Outcome::RoleBinding(state(binding, failure)),
        Write::Delete(target) => match target.kind {
            Kind::PersistentVolumeClaim => Outcome::Claim(gone(failure)),
            Kind::Pod => Outcome::Pod(gone(failure)),
            Kind::Service => Outcome::Service(gone(failure)),
            Kind::NetworkPolicy => Outcome::NetworkPolicy(gone(failure)),
            Kind::Secret => Outcome::Secret(gone(failure)),
            Kind::ServiceAccount => Outcome::ServiceAccount(gone(failure)),
            Kind::Role => Outcome::Role(gone(failure)),
            Kind::RoleBinding => Outcome::RoleBinding(gone(failure)),
            Kind::Sandbox => Outcome::Sandbox(gone(failure)),
            Kind::AigiseSession => Outcome::Session(gone(failure)),
            Kind::Agent => Outcome::Agent(gone(failure)),
        },
    }
}

fn deletes(write: &Write, kind: Kind) -> bool {
    matches!(write, Write::Delete(target) if target.kind == kind)
}

fn condition(status: &AigiseSessionStatus, kind: ConditionType) -> &Condition {
    status.conditions.iter().find(|condition| condition.type_ == kind.to_string()).unwrap()
}

/// It is on its way, the reason is reported, and it is tried again.
fn goes_on(report: &Report<AigiseSessionStatus>, phase: SessionPhase) {
    assert_eq!((report.status.phase, report.requeue), (Some(phase), Requeue::Backoff));
    let condition = condition(&report.status, ConditionType::Reconciling);
    assert_eq!(condition.status, "True");
    assert!(condition.message.contains(WORDS), "{}", condition.message);
}

fn with_sources(mut more: Value) -> Event {
    more["sandboxes"] = json!({"main": {"image": "a:1"}});
    more["volumes"] = json!({"data": {"sources": [{"persistentVolumeClaim": {"claimName": "corpus"}}]}});
    a_session(more)
}

#[test]
fn a_session_is_not_finished_while_something_could_not_be_deleted() {
    let mut world = World::new();
    world.happens(with_sources(json!({"lifetime": {"ttl": "1h"}})));
    world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
    let is_refused: [fn(&Write) -> bool; 3] = [
        |write| deletes(write, Kind::Sandbox),
        |write| deletes(write, Kind::Pod),
        |write| deletes(write, Kind::PersistentVolumeClaim) && write.name() == "demo--tools",
    ];
    for is_refused in is_refused {
        let mut observed = world.observe_session("demo");
        observed.now += Duration::from_secs(7200);
        goes_on(&refused(&mut observed, is_refused), SessionPhase::Expired);
    }
}

#[test]
fn a_suspended_session_is_not_inactive_while_the_stage_pod_could_not_be_deleted() {
    let mut world = World::new();
    world.happens(with_sources(json!({})));
    world.happens(Event::Running("demo--stage".into()));
    world.sessions.get_mut("demo").unwrap().spec.suspend = Some(true);
    let report = refused(&mut world.observe_session("demo"), |write| deletes(write, Kind::Pod));
    goes_on(&report, SessionPhase::Suspended);
}

/// Nothing changes when a deletion is refused, so that nothing would wake the session.
#[test]
fn a_session_that_could_not_be_deleted_at_its_end_says_so_and_is_deleted_later() {
    let mut world = World::new();
    world.happens(with_sources(json!({"lifetime": {"ttl": "1h", "onExpiry": "Delete"}})));
    let mut observed = world.observe_session("demo");
    observed.now += Duration::from_secs(7200);
    goes_on(&refused(&mut observed, |write| deletes(write, Kind::AigiseSession)), SessionPhase::Expired);
}

fn is_growth(write: &Write) -> bool {
    matches!(write, Write::PatchClaim(_))
}

/// A storage class that forbids expansion is not a reason to leave the rest of an edit out.
#[test]
fn a_claim_that_may_not_grow_is_in_the_way_of_nothing_else() {
    let mut world = World::new();
    world.happens(a_session(json!({"sandboxes": {"main": {"image": "a:1"}, "old": {"image": "a:1"}}})));
    let edited = json!({
        "sandboxes": {"main": {"image": "a:2"}, "new": {"image": "a:1"}},
        "volumes": {"scripts": {"size": "2Gi"}, "data": {"size": "2Gi"}},
    });
    let Event::ApplySession(edited) = a_session(edited) else { unreachable!() };
    world.sessions.get_mut("demo").unwrap().spec = edited.spec;
    let mut observed = world.observe_session("demo");
    let writes = planned(&observed);
    let first = writes.iter().position(is_growth).unwrap();
    assert!(writes[first..].iter().all(is_growth), "{writes:?}");
    let done: Vec<_> = writes[..first].iter().map(Write::name).collect();
    assert_eq!(done, ["demo--old", "demo--main", "demo--new"]);

    let report = refused(&mut observed, is_growth);
    assert_eq!((report.status.phase, report.requeue), (Some(SessionPhase::Starting), Requeue::Backoff));
    let volumes = condition(&report.status, ConditionType::VolumesReady);
    assert_eq!((volumes.status.as_str(), volumes.reason.as_str()), ("False", "VolumesPending"));
    assert!(volumes.message.contains(WORDS), "{}", volumes.message);
    let mut session = world.sessions["demo"].clone();
    session.status = Some(report.status);
    assert!(facts::session::has_volumes(&session), "they are as they were, and sandboxes can start");
}

#[test]
fn a_session_that_is_ready_but_for_a_claim_that_may_not_grow_says_so() {
    let mut world = World::new();
    world.happens(a_session(json!({"sandboxes": {"main": {"image": "a:1"}}})));
    world.happens(Event::Running("demo--main".into()));
    let volumes = json!({"data": {"size": "2Gi"}});
    world.sessions.get_mut("demo").unwrap().spec.volumes = Some(serde_json::from_value(volumes).unwrap());
    let report = refused(&mut world.observe_session("demo"), is_growth);
    let ready = condition(&report.status, ConditionType::Ready);
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Forbidden"));
    assert!(ready.message.contains(WORDS), "{}", ready.message);
    assert_eq!(condition(&report.status, ConditionType::SandboxesReady).status, "True");
    assert_eq!(condition(&report.status, ConditionType::VolumesReady).reason, "VolumesPending");
    assert_eq!(report.requeue, Requeue::Backoff);
}

/// A script that waits for `Ready` or `Stalled` gets its answer, and nobody has to do anything here once the cluster allows it.
#[test]
fn what_the_cluster_does_not_allow_needs_a_person_and_is_tried_again() {
    for (reason, stalled) in
        [(Reason::Forbidden, "True"), (Reason::QuotaExceeded, "False"), (Reason::ApiError, "False")]
    {
        let mut world = World::new();
        let alone = json!({"metadata": {"name": "alone"}, "spec": {"type": "main", "image": "a:1"}});
        world.happens(Event::Refuses(Some(reason)));
        world.happens(Event::ApplySandbox(Box::new(serde_json::from_value(alone).unwrap())));
        world.happens(with_sources(json!({})));
        let stalled_is = |world: &World, expected: &str| {
            let kind = ConditionType::Stalled.to_string();
            let session = world.sessions["demo"].status.as_ref().unwrap();
            let sandbox = world.sandboxes["alone"].status.as_ref().unwrap();
            for conditions in [&session.conditions, &sandbox.conditions] {
                let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
                assert_eq!(condition.status, expected, "{reason}: {conditions:?}");
            }
        };
        stalled_is(&world, stalled);
        assert!(world.log.contains("requeue Backoff"), "{}", world.log);
        world.happens(Event::Refuses(None));
        world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
        for pod in ["alone", "demo--main"] {
            world.happens(Event::Running(pod.into()));
        }
        stalled_is(&world, "False");
        assert_eq!(world.sessions["demo"].status.as_ref().unwrap().phase, Some(SessionPhase::Ready));
    }
}

/// A session may use its own claim of one volume by name for another.
#[test]
fn the_outcome_for_a_claim_is_recorded_for_the_volume_that_owns_it() {
    let mut world = World::new();
    let main = json!({"main": {"image": "a:1"}});
    world.change(a_session(json!({"sandboxes": main, "volumes": {"scripts": {"claimName": "demo--data"}}})));
    let mut observed = world.observe_session("demo");
    let report = refused(&mut observed, |_| false);
    let volumes = report.status.volumes.unwrap();
    assert_eq!(volumes.data.map(|data| data.claim_name).as_deref(), Some("demo--data"));
    assert_eq!(volumes.scripts, None, "the claim was looked up before it was created");
}

/// What a sandbox is does not depend on whether the containers beside it could be ended, and the attempt is repeated.
#[test]
fn an_end_is_reported_although_the_containers_beside_it_cannot_be_ended() {
    let sandbox = json!({
        "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "alone"},
        "spec": {
            "type": "main",
            "image": "a:1",
            "restart": {"policy": "Never"},
            "init": {"steps": [{"name": "s", "command": ["true"]}]},
            "podTemplate": {"spec": {"containers": [{"name": "beside", "image": "b:1"}]}},
        },
    });
    let failure = InitFailure { step: Some("s".into()), how: "ended".into(), ..InitFailure::default() };
    for (end, phase) in [
        (Event::Exited { pod: "alone".into(), code: 0, after: 9 }, SandboxPhase::Finished),
        (Event::Exited { pod: "alone".into(), code: 1, after: 9 }, SandboxPhase::Error),
        (Event::InitFailed { pod: "alone".into(), failure }, SandboxPhase::Error),
    ] {
        let mut world = World::new();
        world.happens(Event::ApplySandbox(serde_json::from_value(sandbox.clone()).unwrap()));
        world.happens(if matches!(end, Event::InitFailed { .. }) {
            Event::Initializes("alone".into())
        } else {
            Event::Running("alone".into())
        });
        world.change(end);
        let beside = json!({"name": "beside", "ready": true, "image": "", "imageID": "", "restartCount": 0, "state": {"running": {}}});
        let pod = world.pods.get_mut("alone").unwrap();
        let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
        statuses.push(serde_json::from_value(beside).unwrap());
        let mut observed = world.observe_sandbox("alone");
        let writes = planned(&observed);
        let [write @ Write::PatchPod(_)] = &writes[..] else { panic!("{phase:?}: {writes:?}") };
        let before = reported(&observed);
        assert_eq!(before.status.phase, Some(phase));
        let failure = Failure { reason: Reason::Forbidden, message: WORDS.into() };
        observed.record(write.name(), Outcome::Pod(ChildState::Failed(failure)));
        let after = reported(&observed);
        assert_eq!((&after.status, after.requeue), (&before.status, Requeue::Backoff), "{phase:?}");
    }
}
