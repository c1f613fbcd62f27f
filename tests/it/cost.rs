//! What a reconcile costs, counted: twice the input costs at most 2.2 times, for the largest objects that admission accepts. A
//! walk that visits something twice as often as it is there shows in what it allocates; one that visits all paths does not come
//! to an end.

use aigise_operator::plan::effective::Decided;
use allocation_counter::measure;
use serde_json::{Map, Value, json};

use super::model::{Event, World, planned, reported, settings};

/// How much more twice the input may cost.
const TWICE: f64 = 2.2;

fn session_of(spec: &Value) -> Event {
    let object = json!({"metadata": {"name": "demo", "namespace": "default", "uid": "u"}, "spec": spec});
    Event::ApplySession(Box::new(serde_json::from_value(object).unwrap()))
}

/// Types of which each depends on all later ones.
fn all_later(types: usize) -> Value {
    let name = |index: usize| format!("t{index:02}");
    let sandboxes: Map<_, _> = (0..types)
        .map(|index| {
            let later: Vec<_> = (index + 1..types).map(name).collect();
            (name(index), json!({"image": "a:1", "dependsOn": later}))
        })
        .collect();
    json!({"sandboxes": sandboxes, "suspend": true})
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    allocations: f64,
    bytes: f64,
}

fn cost(mut reconcile: impl FnMut()) -> Cost {
    // What is made once is not counted.
    reconcile();
    let counted = measure(&mut reconcile);
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    Cost { allocations: counted.count_total as f64, bytes: counted.bytes_total as f64 }
}

/// All that is decided about a session, from its specification on.
fn of_session(world: &World) -> Cost {
    let observed = world.observe_session("demo");
    cost(|| {
        drop(Decided::of(&observed.session, &settings()));
        drop(planned(&observed));
        drop(reported(&observed));
    })
}

fn of_sandbox(world: &World, name: &str) -> Cost {
    let observed = world.observe_sandbox(name);
    cost(|| {
        drop(planned(&observed));
        drop(reported(&observed));
    })
}

fn of_agent(world: &World, name: &str) -> Cost {
    let observed = world.observe_agent(name);
    cost(|| {
        drop(planned(&observed));
        drop(reported(&observed));
    })
}

/// `input` is how many times more input the second has.
#[track_caller]
fn is_linear(once: Cost, more: Cost, input: f64) {
    let most = input * TWICE / 2.0;
    assert!(more.allocations <= most * once.allocations, "{input:.2} times the input: {once:?}, {more:?}");
    assert!(more.bytes <= most * once.bytes, "{input:.2} times the input: {once:?}, {more:?}");
}

fn world(events: impl IntoIterator<Item = Event>) -> World {
    let mut world = World::new();
    for event in events {
        world.change(event);
    }
    world
}

#[test]
fn types_that_each_depend_on_all_later_ones_cost_as_much_as_is_written() {
    let [once, twice] = [all_later(23), all_later(32)];
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let input = twice.to_string().len() as f64 / once.to_string().len() as f64;
    assert!(input > 1.7);
    let costs = [&once, &twice].map(|spec| of_session(&world([session_of(spec)])));
    is_linear(costs[0], costs[1], input);
    // What fits of a cache depends on all that a type depends on.
    let costs = [once, twice].map(|mut spec| {
        spec["cache"] = json!({"restore": "Partial"});
        spec["suspend"] = json!(false);
        for template in spec["sandboxes"].as_object_mut().unwrap().values_mut() {
            template["init"] = json!({"steps": [{"name": "s", "command": ["true"]}]});
        }
        of_session(&world([session_of(&spec)]))
    });
    is_linear(costs[0], costs[1], input);
}

#[test]
fn the_largest_defaults_under_the_most_types_cost_as_much_as_is_written() {
    let spec = |bytes: usize| {
        let annotations: Map<_, _> =
            (0..bytes / 100).map(|index| (format!("example.com/{index:05}"), json!("x".repeat(75)))).collect();
        let defaults = json!({"image": "a:1", "podTemplate": {"metadata": {"annotations": annotations}}});
        // A template of each type's own, so that each is laid over the defaults.
        let own = |index: usize| json!({"podTemplate": {"metadata": {"labels": {"own": index.to_string()}}}});
        let sandboxes: Map<_, _> = (0..32).map(|index| (format!("t{index:02}"), own(index))).collect();
        json!({"sandboxes": sandboxes, "sandboxDefaults": defaults})
    };
    let worlds = [30_000, 60_000].map(|bytes| world([session_of(&spec(bytes))]));
    for world in &worlds {
        let conditions = reported(&world.observe_session("demo")).status.conditions;
        assert!(conditions.iter().all(|condition| condition.reason != "InvalidSpec"), "{conditions:?}");
    }
    let [once, twice] = worlds.map(|world| of_session(&world));
    is_linear(once, twice, 2.0);
}

#[test]
fn what_a_specification_decides_alone_is_not_decided_again() {
    let defaults =
        |bytes: usize| json!({"image": "a:1", "podTemplate": {"metadata": {"annotations": {"a": "x".repeat(bytes)}}}});
    let sandboxes: Map<_, _> = (0..32).map(|index| (format!("t{index:02}"), json!({}))).collect();
    let cost_of = |bytes| {
        let world = world([session_of(&json!({"sandboxes": sandboxes, "sandboxDefaults": defaults(bytes)}))]);
        let observed = world.observe_session("demo");
        cost(|| {
            drop(planned(&observed));
            drop(reported(&observed));
        })
    };
    let [small, large] = [100, 60_000].map(cost_of);
    assert!(large.bytes <= 1.1 * small.bytes, "{small:?}, {large:?}");
}

#[test]
fn sandboxes_by_hand_that_depend_on_many_cost_as_much_as_is_written() {
    // Each depends on those after it, in a ring: whoever follows all paths follows more than can be counted.
    let sandboxes = |count: usize, needs: usize| {
        let name = move |index: usize| format!("s{:03}", index % count);
        (0..count).map(move |index| {
            let needed: Vec<_> = (1..=needs).map(|next| name(index + next)).filter(|_| index + needs < count).collect();
            let spec = json!({"session": "demo", "type": name(index), "image": "a:1", "dependsOn": needed});
            let object =
                json!({"metadata": {"name": name(index), "namespace": "default", "uid": name(index)}, "spec": spec});
            Event::ApplySandbox(Box::new(serde_json::from_value(object).unwrap()))
        })
    };
    let of = |count, needs| {
        let session = session_of(&json!({"sandboxes": {"main": {"image": "a:1"}}}));
        of_sandbox(&world(std::iter::once(session).chain(sandboxes(count, needs))), "s000")
    };
    // 34 have 16 each, 68 have 32.
    is_linear(of(50, 16), of(100, 32), 4.0);
}

/// Only the first of its type and what it depends on are its matter, and an agent's only what it requires.
#[test]
fn a_reconcile_costs_the_same_beside_few_siblings_and_beside_many() {
    let of = |count: usize| {
        let sandbox = |index: usize, sandbox_type: &str, needs: &[&str]| {
            let name = format!("s{index:03}");
            let spec = json!({"session": "demo", "type": sandbox_type, "image": "a:1", "dependsOn": needs});
            let object = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
            Event::ApplySandbox(Box::new(serde_json::from_value(object).unwrap()))
        };
        let session = session_of(&json!({"sandboxes": {"main": {"image": "a:1"}}}));
        let agent = json!({"metadata": {"name": "a", "namespace": "default", "uid": "a"}, "spec": {"session": "demo", "requires": {"sandboxes": ["same"]}}});
        let agent = Event::ApplyAgent(Box::new(serde_json::from_value(agent).unwrap()));
        let others = (1..count).map(|index| sandbox(index, &format!("t{index}"), &[]));
        let same = (count..2 * count).map(|index| sandbox(index, "same", &[]));
        let first = sandbox(0, "first", &["main", "same"]);
        let last = sandbox(2 * count, "same", &[]);
        let world = world([session, agent, first].into_iter().chain(others).chain(same).chain([last]));
        (of_sandbox(&world, "s000"), of_sandbox(&world, &format!("s{:03}", 2 * count)), of_agent(&world, "a"))
    };
    let ((first, last, agent), (first_2, last_2, agent_2)) = (of(50), of(100));
    is_linear(first, first_2, 1.0);
    is_linear(last, last_2, 1.0);
    is_linear(agent, agent_2, 1.0);
}

#[test]
fn agents_in_a_chain_and_in_a_star_cost_as_much_as_is_written() {
    let agents = |count: usize, is_chain: bool| {
        (0..count).map(move |index| {
            let above = if is_chain { index.saturating_sub(1) } else { 0 };
            let parent = (index > 0).then(|| format!("a{above:03}"));
            let spec = json!({"session": "demo", "parent": parent});
            let name = format!("a{index:03}");
            let object = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
            Event::ApplyAgent(Box::new(serde_json::from_value(object).unwrap()))
        })
    };
    for is_chain in [true, false] {
        let of = |count| {
            let session = session_of(&json!({"sandboxes": {"main": {"image": "a:1"}}}));
            let world = world(std::iter::once(session).chain(agents(count, is_chain)));
            (of_session(&world), of_agent(&world, "a000"), of_agent(&world, &format!("a{:03}", count - 1)))
        };
        let ((session, first, last), (session_2, first_2, last_2)) = (of(250), of(500));
        is_linear(session, session_2, 2.0);
        is_linear(first, first_2, 2.0);
        is_linear(last, last_2, 1.0);
    }
}

#[test]
fn tools_and_skills_of_an_agent_cost_as_much_as_is_written() {
    let of = |count: usize| {
        let words = |word: &str| (0..count).map(|index| format!("{word}{index:03}")).collect::<Vec<_>>();
        let session = session_of(&json!({"sandboxes": {"main": {"image": "a:1"}}, "tools": words("tool")}));
        let spec = json!({"session": "demo", "config": {"toolNames": words("tool")}});
        let object = json!({"metadata": {"name": "a", "namespace": "default", "uid": "a"}, "spec": spec});
        let agent = Event::ApplyAgent(Box::new(serde_json::from_value(object).unwrap()));
        of_agent(&world([session, agent]), "a")
    };
    is_linear(of(128), of(256), 2.0);
}
