//! The command line.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    api::session::VolumeLayout,
    plan::{CacheLimits, HelperResources, quantity::Amount},
};

/// A Kubernetes operator that runs AI security-analysis sessions.
#[derive(Clone, Debug, Parser)]
#[command(name = "aigise-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the operator, in the cluster or outside of it (KUBECONFIG).
    Run(RunArgs),
    /// Print the CustomResourceDefinitions, or write them to a directory.
    Crds {
        /// Write each CustomResourceDefinition to a file in this directory.
        #[arg(long)]
        into: Option<std::path::PathBuf>,
    },
    /// Print a configuration file of the framework as the operator understands it. Needs no cluster.
    Config(ConfigArgs),
    /// Create a small session, wait until it is ready, and delete it: `helm test` runs this.
    #[command(hide = true)]
    SelfTest(SelfTestArgs),
}

/// The arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The image that contains the helper `sandboxd`: the operator's own image.
    #[arg(long, env = "HELPER_IMAGE")]
    pub helper_image: String,

    /// How the helper gets into a sandbox: as an image volume, or copied by an init container. `auto` detects it once, at the start.
    #[arg(long, value_enum, default_value_t = HelperMountArg::Auto)]
    pub helper_mount: HelperMountArg,

    /// The requests and limits of the operator's own containers in Pods: of those that fill volumes, report the success of init work, and
    /// install the helper. JSON in the form of a container's `resources`; what is left out or `null` gets the defaults of the namespace's limit range.
    #[arg(long, value_name = "JSON", default_value_t)]
    pub helper_resources: HelperResources,

    /// Whether the nodes can mount images as volumes. `auto` detects it once, at the start.
    #[arg(long, value_enum, default_value_t = ImageVolumes::Auto)]
    pub image_volumes: ImageVolumes,

    /// Watch only these namespaces, and need no permissions in others: `--watch-namespaces a,b`. Default: all namespaces.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,

    /// Accept templates with settings that let a sandbox escape from its container, such as `privileged`.
    #[arg(long, env = "ALLOW_PRIVILEGED_TEMPLATES")]
    pub allow_privileged_templates: bool,

    /// Allow the Pods of agents that request it to run commands in the sandboxes of their session. The operator itself must have this
    /// permission.
    #[arg(long, env = "AIGISE_ALLOW_RUNNER_EXEC")]
    pub allow_runner_exec: bool,

    /// Public address ranges that belong to the cluster and that no sandbox may reach: `--cluster-ranges 203.0.113.0/24,2001:db8::/32`.
    #[arg(long, env = "CLUSTER_RANGES", value_delimiter = ',', value_parser = cidr)]
    pub cluster_ranges: Vec<IpNet>,

    /// How the volumes of a session that does not say it are laid out on claims: `Separate` or `Single`. Sessions that have claims keep theirs.
    #[arg(long, env = "VOLUME_LAYOUT", default_value_t)]
    pub volume_layout: VolumeLayout,

    /// How many caches each namespace keeps. Those that were not used for the longest time are deleted first.
    #[arg(long, default_value_t = CacheLimits::default().max_entries, value_parser = positive)]
    pub cache_max_entries: usize,

    /// How many bytes the caches of each namespace take, at most, as they are stored: a quantity such as `200Gi`. Default: they are not
    /// limited.
    #[arg(long, value_name = "QUANTITY", value_parser = bytes)]
    pub cache_max_bytes: Option<u64>,

    /// The address at which `/metrics` is served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// The address at which the probes `/livez` and `/readyz` are served. The port is separate: it can stay open while the port of the
    /// metrics is closed.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub probes_listen: SocketAddr,

    /// How many objects of one kind are reconciled at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// The format of log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// The name under which this process reports events: the name of its Pod.
    #[arg(long, env = "CONTROLLER_POD_NAME")]
    pub instance: Option<String>,
}

/// The arguments of `config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The file, in TOML; `-` reads the standard input.
    pub file: std::path::PathBuf,

    /// The value of a variable: `${NAME}` in the file. May be repeated. It takes precedence over a value in the file.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = variable)]
    pub variables: Vec<(String, String)>,

    /// What to print.
    #[arg(short, long, value_enum, default_value_t = ConfigOutput::Manifest)]
    pub output: ConfigOutput,

    /// The name of the session in the manifest.
    #[arg(long, default_value = "session")]
    pub name: String,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigOutput {
    /// The file with its variables replaced.
    Toml,
    /// The manifest of a session, for `kubectl apply`.
    Manifest,
}

/// The arguments of `self-test`.
#[derive(Clone, Debug, Args)]
pub struct SelfTestArgs {
    /// The namespace in which the session is created.
    #[arg(long)]
    pub namespace: String,

    /// The image that the session's sandbox runs; any image works.
    #[arg(long)]
    pub image: String,

    /// The storage class of the session's volumes. Default: the cluster's default class.
    #[arg(long)]
    pub storage_class: Option<String>,

    /// How many seconds the session may take to become ready.
    #[arg(long, default_value_t = 180)]
    pub timeout: u32,
}

/// How the helper gets into a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HelperMountArg {
    /// As an image volume where the cluster supports it, else copied.
    Auto,
    /// As an image volume.
    Image,
    /// Copied by an init container.
    Copy,
}

/// Whether the nodes can mount images as volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageVolumes {
    /// Detected from the versions of the API server and of the nodes' container runtimes.
    Auto,
    /// All nodes can.
    True,
    /// Some node cannot.
    False,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Parses the name of a namespace. An empty name is an error (a variable may not be set), and must not mean all namespaces.
fn namespace(name: &str) -> Result<String, String> {
    let name = name.trim();
    let well_formed = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.starts_with(|c| c != '-')
        && !name.ends_with('-')
        && name.len() <= 63;
    if well_formed { Ok(name.into()) } else { Err(format!("`{name}` is not the name of a namespace")) }
}

/// Parses a CIDR that the API server accepts as an exception in a network policy: it must not contain all addresses, have bits set
/// beyond the prefix, or be an IPv4-mapped IPv6 range.
fn cidr(text: &str) -> Result<IpNet, String> {
    let is_mapped = |network: &IpNet| matches!(network, IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some());
    let network = text.trim().parse().ok();
    let network = network.filter(|network: &IpNet| network.prefix_len() > 0 && *network == network.trunc());
    network
        .filter(|network| !is_mapped(network))
        .ok_or_else(|| format!("`{text}` is not a CIDR such as 203.0.113.0/24"))
}

/// Parses a number that is not 0.
fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`{text}` is not a positive number"))
}

/// Parses a quantity of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let bytes = Amount::parse(text).map(Amount::whole).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("`{text}` is not a positive quantity such as 200Gi"))
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable must have the form NAME=VALUE")?;
    if !crate::config::expand::is_name(name) {
        return Err(format!("`{name}` is not a valid variable name: use upper-case letters, digits and `_`"));
    }
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Cli, Command, HelperResources, RunArgs};

    #[test]
    fn variables_are_names_with_values() {
        let config = |set| match Cli::try_parse_from(["aigise-operator", "config", "a.toml", "--set", set])?.command {
            Command::Config(arguments) => Ok::<_, clap::Error>(arguments.variables),
            other => panic!("{other:?}"),
        };
        assert_eq!(config("A=b=c").unwrap(), [("A".to_string(), "b=c".to_string())]);
        assert_eq!(config("A=").unwrap(), [("A".to_string(), String::new())]);
        assert!(config("A").is_err() && config("a=b").is_err() && config("=b").is_err());
    }

    fn run(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
        let all = ["aigise-operator", "run", "--helper-image=x"].iter().chain(arguments);
        Ok(match Cli::try_parse_from(all)?.command {
            Command::Run(arguments) => arguments,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn ranges_are_a_list_of_cidrs_that_a_policy_can_except() {
        let ranges = run(&["--cluster-ranges=203.0.113.0/24, 2001:DB8::/32"]).unwrap().cluster_ranges;
        assert_eq!(ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.0/24", "2001:db8::/32"]);
        for wrong in [
            "",
            "203.0.113.0",
            "203.0.113.0/33",
            "0.0.0.0/0",
            "::/129",
            "203.0.113/24",
            "a/8",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "::ffff:1.2.3.0/120",
        ] {
            assert!(run(&[&format!("--cluster-ranges={wrong}")]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn namespaces_are_a_list_and_none_of_them_is_empty() {
        assert!(run(&[]).unwrap().watch_namespaces.is_empty());
        assert_eq!(run(&["--watch-namespaces=a, team-b"]).unwrap().watch_namespaces, ["a", "team-b"]);
        for wrong in ["--watch-namespaces=", "--watch-namespaces=a,,b", "--watch-namespaces=*", "--watch-namespaces=-a"]
        {
            let error = run(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("is not the name of a namespace"), "{wrong}: {error}");
        }
    }

    #[test]
    fn resources_of_the_helper_are_json_and_a_mistake_ends_the_start() {
        assert_eq!(run(&[]).unwrap().helper_resources, HelperResources::default());
        let written = r#"{"requests":{"cpu":"50m"},"limits":{}}"#;
        let resources = run(&[&format!("--helper-resources={written}")]).unwrap().helper_resources;
        assert_eq!(resources.to_string(), written);
        let error = run(&[r#"--helper-resources={"limits":{"cpu":"two"}}"#]).unwrap_err().to_string();
        assert!(error.contains("--helper-resources") && error.contains("`two` is not a quantity"), "{error}");
    }

    #[test]
    fn the_limits_of_caches_are_positive() {
        let limits = |arguments: &[&str]| {
            let run = run(arguments)?;
            Ok::<_, clap::Error>((run.cache_max_entries, run.cache_max_bytes))
        };
        assert_eq!(limits(&[]).unwrap(), (100, None));
        let both = ["--cache-max-entries=7", "--cache-max-bytes=1.5Gi"];
        assert_eq!(limits(&both).unwrap(), (7, Some(3 << 29)));
        // As a template may print a large number.
        assert_eq!(limits(&["--cache-max-bytes=1e+09"]).unwrap().1, Some(1_000_000_000));
        for wrong in ["entries=0", "entries=-1", "entries=all", "bytes=0", "bytes=-1", "bytes=1m", "bytes=much"] {
            assert!(limits(&[&format!("--cache-max-{wrong}")]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn privileged_templates_are_allowed_only_by_saying_so() {
        assert!(!run(&[]).unwrap().allow_privileged_templates);
        assert!(run(&["--allow-privileged-templates"]).unwrap().allow_privileged_templates);
    }
}
