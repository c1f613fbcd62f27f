//! A real git with the environment of a sandbox, in a repository of another user. git refuses such a repository
//! ("dubious ownership"), unless its configuration names it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use aigise_operator::api::meta;
use rustix::process::geteuid;
use serde_json::{Value, json};

use super::model::{Event, World};

/// The user to whom staged files belong.
const STAGED: u32 = 65532;

/// The variables of a sandbox's Pod, in their order. A later one of the same name hides an earlier one.
fn variables(world: &World, pod: &str) -> Vec<(String, String)> {
    let container = &world.pods[pod].spec.as_ref().unwrap().containers[0];
    let variables = container.env.iter().flatten();
    variables.map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default())).collect()
}

/// Those of a session's sandbox with variables of its own that are about git.
fn of_git(own: &Value) -> BTreeMap<String, String> {
    of_git_in(&json!({"image": "a", "env": own}))
}

fn of_git_in(main: &Value) -> BTreeMap<String, String> {
    let session = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"}, "spec": {"sandboxes": {"main": main}}});
    let mut world = World::new();
    world.happens(Event::ApplySession(Box::new(serde_json::from_value(session).unwrap())));
    let all = variables(&world, "demo--main");
    let of_git: Vec<_> = all.into_iter().filter(|(name, _)| name.starts_with("GIT_")).collect();
    let last: BTreeMap<_, _> = of_git.iter().cloned().collect();
    assert_eq!(last.len(), of_git.len(), "a name is there twice: {of_git:?}");
    last
}

fn git(user: u32, environment: &BTreeMap<String, String>, arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env_clear().envs(environment).uid(user).gid(user);
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", "/nonexistent").env("LC_ALL", "C");
    command.output().unwrap()
}

#[test]
fn every_user_may_work_in_a_repository_that_was_staged() {
    if !geteuid().is_root() || Command::new("git").arg("--version").output().is_err() {
        eprintln!("skipped: this test needs root, and git");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // The users may not be able to read this project.
    let configuration = folder.path().join("gitconfig");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandboxd/gitconfig"), &configuration).unwrap();
    fs::set_permissions(&configuration, fs::Permissions::from_mode(0o644)).unwrap();
    let repository = folder.path().join("repository");
    let made = git(STAGED, &BTreeMap::new(), &["init", "-q", "repository"], folder.path());
    assert!(made.status.success(), "{made:?}");

    let mut environment = of_git(&json!([]));
    assert_eq!(environment["GIT_CONFIG_SYSTEM"], meta::GIT_CONFIG);
    environment.insert("GIT_CONFIG_SYSTEM".into(), configuration.display().to_string());
    let (file, count): (BTreeMap<_, _>, BTreeMap<_, _>) =
        environment.clone().into_iter().partition(|(name, _)| name == "GIT_CONFIG_SYSTEM");
    let own = json!([
        {"name": "GIT_CONFIG_COUNT", "value": "1"},
        {"name": "GIT_CONFIG_KEY_0", "value": "alias.greeting"},
        {"name": "GIT_CONFIG_VALUE_0", "value": "status"},
    ]);
    let mut with_own = of_git(&own);
    assert_eq!(
        with_own.insert("GIT_CONFIG_SYSTEM".into(), configuration.display().to_string()).unwrap(),
        meta::GIT_CONFIG
    );
    for user in [0, 1000] {
        let refused = git(user, &BTreeMap::new(), &["status"], &repository);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("dubious ownership"), "{refused:?}");
        // git before 2.38 reads this setting in files only; where a program ignores the system's files, the variables are left.
        for environment in [&environment, &file, &count] {
            let output = git(user, environment, &["status"], &repository);
            assert!(output.status.success(), "{user} {environment:?} {output:?}");
        }
        let output = git(user, &with_own, &["greeting"], &repository);
        assert!(output.status.success(), "{user} {output:?}");
    }
}

#[test]
fn the_variables_of_a_template_replace_those_for_git() {
    let set = |name: &str, value: &str| json!({"name": name, "value": value});
    let own = json!([set("GIT_CONFIG_SYSTEM", "/etc/gitconfig"), set("GIT_CONFIG_COUNT", "0")]);
    let environment = of_git(&own);
    assert_eq!(environment["GIT_CONFIG_SYSTEM"], "/etc/gitconfig");
    assert_eq!(environment["GIT_CONFIG_COUNT"], "0");
}

/// Variables of `env` hide those of `envFrom`, and a smaller count hides settings.
#[test]
fn settings_that_may_be_counted_in_env_from_are_not_hidden() {
    let environment = of_git_in(&json!({"image": "a", "envFrom": [{"configMapRef": {"name": "own"}}]}));
    assert_eq!(environment.into_keys().collect::<Vec<_>>(), ["GIT_CONFIG_SYSTEM"]);
}

/// git's check stays where nothing is shared: in the Pod of an agent, and in a sandbox without volumes.
#[test]
fn git_trusts_other_users_only_where_volumes_are_mounted() {
    let mut world = World::new();
    let apply = |text: &str| serde_yaml::from_str(text).unwrap();
    world.happens(Event::ApplySandbox(apply("{metadata: {name: alone}, spec: {type: main, image: a}}")));
    world.happens(Event::ApplySandbox(apply(
        "{metadata: {name: holds}, spec: {type: main, image: a, volumes: [{name: w, claimName: c, mountPath: /w}]}}",
    )));
    world.happens(Event::ApplySession(
        serde_yaml::from_str("{metadata: {name: demo}, spec: {sandboxes: {main: {image: a}}}}").unwrap(),
    ));
    world.happens(Event::Running("demo--main".into()));
    let agent = "{metadata: {name: a}, spec: {session: demo, runner: {image: b}}}";
    world.happens(Event::ApplyAgent(serde_yaml::from_str(agent).unwrap()));
    let runner = aigise_operator::plan::facts::agent::runner_name(&world.agents["a"]);
    for (pod, trusts) in [("alone", false), ("holds", true), ("demo--main", true), (runner.as_str(), false)] {
        let names = variables(&world, pod).into_iter().any(|(name, _)| name == "GIT_CONFIG_SYSTEM");
        assert_eq!(names, trusts, "{pod}");
    }
}
