//! Where a session's configuration comes from, and the parts of it that are for the agents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::crds::rule;

/// The framework's own configuration file, in TOML. Exactly one of `configMapKeyRef` and `secretKeyRef` must be set. The session's
/// own fields override the values of the file, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.configMapKeyRef) != has(self.secretKeyRef)",
        "exactly one of configMapKeyRef and secretKeyRef must be set"),
]))]
pub struct ConfigFrom {
    /// A key of a ConfigMap of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,

    /// A key of a Secret of the same namespace. The sandbox environments and the credentials in the file then stay in Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// One key of a ConfigMap or a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// The name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = super::OBJECT_NAME))]
    pub name: String,

    /// The key.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// The value of `${NAME}` in the configuration file. It overrides the file's own variable of that name. Exactly one of `value` and
/// `valueFrom` must be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.value) != has(self.valueFrom)", "exactly one of value and valueFrom must be set"),
]))]
pub struct Variable {
    /// The name of the variable: upper-case letters, digits and `_`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Z0-9_]+$"))]
    pub name: String,

    /// The value of the variable, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,

    /// The source of the variable's value. The configuration may use this variable in environments, in credentials, and in keys
    /// that only the agents read. A configuration that uses the variable elsewhere, where everybody could read the value, is
    /// rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<VariableSource>,
}

/// The source of a variable's value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VariableSource {
    /// A key of a Secret of the same namespace.
    pub secret_key_ref: KeyRef,
}

/// A model that agents may use, by the name that agents use for it: `main`, `summarize`, …
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The provider's name of the model, such as `openai/gpt-5`. Required here or in the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model_name: Option<String>,

    /// The sampling temperature, as text: `"0.2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^-?[0-9]+([.][0-9]+)?$"))]
    pub temperature: Option<String>,

    /// The maximum number of tokens in an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_tokens: Option<i64>,

    /// The maximum number of requests per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rpm: Option<i64>,

    /// The maximum number of tokens per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub tpm: Option<i64>,

    /// The API key of the provider, in a Secret of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<KeyRef>,
}

/// How the target is built and run. Initialisers and agents use these values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// The folder of the target's source in the sandboxes. Default: `/shared/code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub source_dir: Option<String>,

    /// The folder with the inputs that show the bug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub poc_dir: Option<String>,

    /// The command that compiles the target. Default: `arvo compile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub compile_command: Option<String>,

    /// The command that runs the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub run_command: Option<String>,

    /// The kind of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub target_type: Option<String>,

    /// The program that is analysed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub target_binary: Option<String>,
}
