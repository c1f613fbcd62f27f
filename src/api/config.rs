//! Where a session's configuration comes from, and what of it is the agents'.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::crds::rule;

/// The framework's own configuration file, in TOML: exactly one of `configMapKeyRef` and `secretKeyRef`. What it says can be said
/// anew, field by field, in the session itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.configMapKeyRef) != has(self.secretKeyRef)", "exactly one of configMapKeyRef and secretKeyRef"),
]))]
pub struct ConfigFrom {
    /// A key of a ConfigMap of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,

    /// A key of a Secret of the same namespace. The environments of its sandboxes and its credentials stay in Secrets.
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

/// What `${NAME}` stands for in the configuration file; it wins over the file's own variable of that name. Exactly one of `value`
/// and `valueFrom`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.value) != has(self.valueFrom)", "exactly one of value and valueFrom"),
]))]
pub struct Variable {
    /// Its name: upper-case letters, digits and `_`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Z0-9_]+$"))]
    pub name: String,

    /// Its value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,

    /// Where its value comes from. It may stand in environments, in credentials, and in what is the agents' own; elsewhere everybody
    /// could read it, and the configuration is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<VariableSource>,
}

/// Where the value of a variable comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VariableSource {
    /// A key of a Secret of the same namespace.
    pub secret_key_ref: KeyRef,
}

/// A model that agents may use, by the name that they know it by: `main`, `summarize`, …
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// The provider's name of the model, as `openai/gpt-5`. Required here or in the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model_name: Option<String>,

    /// The sampling temperature, as text: `"0.2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^-?[0-9]+([.][0-9]+)?$"))]
    pub temperature: Option<String>,

    /// How many tokens an answer may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_tokens: Option<i64>,

    /// How many requests there may be in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rpm: Option<i64>,

    /// How many tokens there may be in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub tpm: Option<i64>,

    /// The key of the provider, in a Secret of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<KeyRef>,
}

/// How the target is built and run, for initialisers and agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Build {
    /// The folder of the target's source in the sandboxes. Default: `/shared/code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub source_dir: Option<String>,

    /// The folder of the inputs that show the bug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub poc_dir: Option<String>,

    /// The command that compiles the target. Default: `arvo compile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub compile_command: Option<String>,

    /// The command that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub run_command: Option<String>,

    /// What kind of target it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub target_type: Option<String>,

    /// The program that is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub target_binary: Option<String>,
}
