//! Every key of the framework's file: its type, and how it is handled. `docs/configuration.md` documents the same for users; a test
//! compares both.

/// How a key is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The key becomes this field of a session.
    Used(&'static str),
    /// The key becomes this field of a session, and the field may hold a secret.
    UsedWithSecrets(&'static str),
    /// The key is for the agents and is copied to the effective configuration.
    Carried,
    /// The key has no meaning in a cluster, for this reason.
    Ignored(&'static str),
    /// The key holds other keys.
    Section,
}

/// The type that a value is converted to, if possible.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A boolean; the text `"false"` is false.
    Bool,
    /// A list of texts.
    Texts,
    /// Text, or a list of texts.
    TextOrTexts,
    /// Any type: the value is interpreted where it is used.
    Any,
    /// A table of these keys.
    Table(&'static [Key]),
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name of the key; `*` matches any name.
    pub name: &'static str,
    /// The type of the key's value.
    pub shape: Shape,
    /// How the key is handled.
    pub fate: Handling,
}

impl Key {
    /// Whether the value of the key matters to the session or to its agents.
    pub fn has_effect(&self) -> bool {
        !matches!(self.fate, Handling::Ignored(_))
    }
}

/// The key of this name among the keys of a table; `None` if the key is unknown.
pub fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name || key.name == "*")
}

const fn used(name: &'static str, shape: Shape, field: &'static str) -> Key {
    Key { name, shape, fate: Handling::Used(field) }
}

const fn carried(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, fate: Handling::Carried }
}

const fn ignored(name: &'static str, why: &'static str) -> Key {
    Key { name, shape: Shape::Any, fate: Handling::Ignored(why) }
}

const fn section(name: &'static str, keys: &'static [Key]) -> Key {
    Key { name, shape: Shape::Table(keys), fate: Handling::Section }
}

const NO_HOST: &str = "a sandbox has no folders of a host; fill the session's volumes through spec.volumes";
const NO_BUILD: &str = "the operator builds no images; build the image beforehand and name it in `image`";
const NO_DOCKER: &str = "there is no Docker host; the cluster runs the sandboxes";
const ONE_CLUSTER: &str = "the operator works in its own cluster, in the namespace of the session";
const UNREAD: &str = "the framework itself does not read it";

/// The keys of the top level.
pub const FILE: &[Key] = &[
    used("task_name", Shape::Text, "taskName"),
    used("auto_cleanup", Shape::Bool, "autoCleanup"),
    used("src_dir_in_sandbox", Shape::Text, "build.sourceDir"),
    carried("agent_storage_path", Shape::Text),
    carried("load_dynamic_agents", Shape::Bool),
    ignored("default_host", "sandboxes are reached by their DNS names"),
    section("sandbox", SANDBOX),
    section("mcp", &[section("services", &[section("*", MCP_SERVICE)])]),
    section("llm", &[section("model_configs", &[section("*", MODEL)])]),
    section("build", BUILD),
    section("neo4j", NEO4J),
    section("history", HISTORY),
    section(
        "plugins",
        &[
            carried("enabled", Shape::Texts),
            carried("extra_plugin_dirs", Shape::Texts),
            carried("params", Shape::Any),
            carried("adk_plugin_params", Shape::Any),
        ],
    ),
    section(
        "agent_ensemble",
        &[
            carried("enforce_thread_safe_tools", Shape::Bool),
            carried("thread_safe_tools", Shape::Texts),
            carried("available_models_for_ensemble", Shape::TextOrTexts),
        ],
    ),
    section("memory", MEMORY),
];

const SANDBOX: &[Key] = &[
    used("backend", Shape::Text, "(checked: one of the framework's; the cluster stands in for each)"),
    used("tolerations", Shape::Any, "sandboxDefaults.podTemplate.spec.tolerations"),
    section("sandboxes", &[section("*", CONTAINER)]),
    ignored("default_image", UNREAD),
    ignored("project_relative_shared_data_path", NO_HOST),
    ignored("absolute_shared_data_path", NO_HOST),
    ignored("host_shared_mem_dir", NO_HOST),
    ignored("mount_host_paths", NO_HOST),
    ignored("docker_host", NO_DOCKER),
    ignored("docker_remote_host", NO_DOCKER),
    section("opensandbox", OPENSANDBOX),
];

const CONTAINER: &[Key] = &[
    used("image", Shape::Text, "image"),
    used("command", Shape::TextOrTexts, "command; `\"\"`: entrypoint: Image; text: [/bin/sh, -c, text]"),
    Key { name: "environment", shape: Shape::Any, fate: Handling::UsedWithSecrets("env") },
    used("ports", Shape::Any, "ports, by the container's own port"),
    used("volumes", Shape::Texts, "podTemplate, where the source is a claim; a folder of the host is ignored"),
    used("working_dir", Shape::Text, "workingDir"),
    used("mem_limit", Shape::Text, "resources.limits.memory"),
    used("cpus", Shape::Text, "resources.limits.cpu"),
    used("shm_size", Shape::Text, "podTemplate: a volume in memory at /dev/shm"),
    used("user", Shape::Text, "securityContext.runAsUser, .runAsGroup; a name other than root is ignored"),
    used("privileged", Shape::Bool, "securityContext.privileged"),
    used("cap_add", Shape::Texts, "securityContext.capabilities.add"),
    used("security_opt", Shape::Texts, "securityContext"),
    used("mcp_services", Shape::Texts, "mcpServices"),
    section(
        "extra",
        &[
            used("initializer_timeout_sec", Shape::Number, "init.timeout"),
            ignored("namespace", ONE_CLUSTER),
            ignored("k8s_namespace", ONE_CLUSTER),
            ignored("context", ONE_CLUSTER),
            ignored("k8s_context", ONE_CLUSTER),
            ignored("kubeconfig", ONE_CLUSTER),
            ignored("cached_rootfs_tar", "there is no cache of a host"),
            ignored("cached_base_image", UNREAD),
            ignored("*", "it is a setting of another backend"),
        ],
    ),
    ignored("container_id", "a cluster has no Docker containers; use `attach` to name a Pod"),
    ignored("pod_name", "it names the Pod of an earlier launch; use `attach` to name a Pod"),
    ignored("container_name", "it names a container of an earlier launch; use `attach` to name a container"),
    ignored("timeout", "it is the time limit of a Docker client"),
    ignored("platform", UNREAD),
    ignored("mounts", UNREAD),
    ignored(
        "docker_args",
        "there is no Docker command line; use podTemplate for settings without a field of their own",
    ),
    ignored("network", "the sandboxes of a session reach each other; spec.network sets what else they reach"),
    ignored("host_gateway", NO_DOCKER),
    ignored("gpus", "a cluster counts devices; request them in resources.limits"),
    ignored("project_relative_dockerfile_path", NO_BUILD),
    ignored("absolute_dockerfile_path", NO_BUILD),
    ignored("agent_relative_dockerfile_path", NO_BUILD),
    ignored("build_args", NO_BUILD),
    ignored("using_cached", "there is no cache of a host; init.skip skips an initialiser"),
];

const OPENSANDBOX: &[Key] = &[ignored("*", "the cluster runs the sandboxes, not an OpenSandbox server")];

const MCP_SERVICE: &[Key] = &[
    used("sse_port", Shape::Any, "mcpServices.<name>.port"),
    used("sse_host", Shape::Text, "mcpServices.<name>.sandbox, where it names a type"),
];

const MODEL: &[Key] = &[
    used("model_name", Shape::Text, "models.<name>.modelName"),
    used("temperature", Shape::Number, "models.<name>.temperature"),
    used("max_tokens", Shape::Integer, "models.<name>.maxTokens"),
    used("rpm", Shape::Integer, "models.<name>.rpm"),
    used("tpm", Shape::Integer, "models.<name>.tpm"),
];

const BUILD: &[Key] = &[
    used("poc_dir", Shape::Text, "build.pocDir"),
    used("compile_command", Shape::Text, "build.compileCommand"),
    used("run_command", Shape::Text, "build.runCommand"),
    used("target_type", Shape::Text, "build.targetType"),
    used("target_binary", Shape::Text, "build.targetBinary"),
];

const NEO4J: &[Key] = &[
    carried("user", Shape::Text),
    carried("password", Shape::Text),
    carried("bolt_port", Shape::Integer),
    carried("neo4j_http_port", Shape::Integer),
    carried("host", Shape::Text),
];

const HISTORY: &[Key] = &[
    carried("max_tool_response_length", Shape::Integer),
    carried("enable_quota_countdown", Shape::Bool),
    section(
        "events_compaction",
        &[carried("max_history_summary_length", Shape::Integer), carried("compaction_percent", Shape::Integer)],
    ),
];

const MEMORY: &[Key] = &[
    carried("enabled", Shape::Bool),
    carried("llm_model", Shape::Text),
    carried("embedding_model", Shape::Text),
    carried("use_llm_selection", Shape::Bool),
    carried("use_llm_decision", Shape::Bool),
    carried("search_max_iterations", Shape::Integer),
    carried("similarity_threshold", Shape::Number),
];

/// All keys that hold a value, as paths: `sandbox.sandboxes.*.image`.
pub fn all() -> Vec<(String, Handling)> {
    fn add(keys: &[Key], path: &str, found: &mut Vec<(String, Handling)>) {
        for key in keys {
            let path = if path.is_empty() { key.name.to_string() } else { format!("{path}.{}", key.name) };
            match key.shape {
                Shape::Table(keys) => add(keys, &path, found),
                Shape::Text
                | Shape::Integer
                | Shape::Number
                | Shape::Bool
                | Shape::Texts
                | Shape::TextOrTexts
                | Shape::Any => found.push((path, key.fate)),
            }
        }
    }
    let mut found = Vec::new();
    add(FILE, "", &mut found);
    found
}
