//! What the process is told.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

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
    /// Print the CustomResourceDefinitions, or write them into a folder.
    Crds {
        /// Write each into a file of this folder.
        #[arg(long)]
        into: Option<std::path::PathBuf>,
    },
    /// Print what a configuration file of the framework says, as it is taken here. Needs no cluster.
    Config(ConfigArgs),
    /// Make a small session, wait until it is ready, and delete it: what `helm test` does.
    #[command(hide = true)]
    SelfTest(SelfTestArgs),
}

/// How to run.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The image that holds the helper `sandboxd`: the operator's own image.
    #[arg(long, env = "HELPER_IMAGE")]
    pub helper_image: String,

    /// How the helper gets into a sandbox: as an image volume, or copied by an init container. `auto` asks the cluster once.
    #[arg(long, value_enum, default_value_t = HelperMountArg::Auto)]
    pub helper_mount: HelperMountArg,

    /// Look after these namespaces only, with no right in any other: `--watch-namespaces a,b`. Absent: after all.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,

    /// Accept templates that ask for what lets a sandbox out of its container, such as `privileged`.
    #[arg(long, env = "ALLOW_PRIVILEGED_TEMPLATES")]
    pub allow_privileged_templates: bool,

    /// Let the Pods of agents that ask for it run commands in the sandboxes of their session. The operator must hold that right itself.
    #[arg(long, env = "AIGISE_ALLOW_RUNNER_EXEC")]
    pub allow_runner_exec: bool,

    /// Public ranges of addresses that are the cluster's own, which no sandbox reaches: `--cluster-ranges 203.0.113.0/24,2001:db8::/32`.
    #[arg(long, env = "CLUSTER_RANGES", value_delimiter = ',', value_parser = cidr)]
    pub cluster_ranges: Vec<IpNet>,

    /// Where `/metrics` is served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Where the probes are served, `/livez` and `/readyz`: a port of their own, which stays open where that of the metrics is closed.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub probes_listen: SocketAddr,

    /// How many objects of one kind are worked on at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// The name under which this process reports events: its Pod's.
    #[arg(long, env = "CONTROLLER_POD_NAME")]
    pub instance: Option<String>,
}

/// What to print of which file.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The file, in TOML; `-` is the standard input.
    pub file: std::path::PathBuf,

    /// The value of a variable: `${NAME}` in the file. May be said several times; it wins over the file's own.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = variable)]
    pub variables: Vec<(String, String)>,

    /// What to print.
    #[arg(short, long, value_enum, default_value_t = ConfigOutput::Manifest)]
    pub output: ConfigOutput,

    /// The name of the session in the manifest.
    #[arg(long, default_value = "session")]
    pub name: String,
}

/// What is printed of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigOutput {
    /// The file again, with its variables replaced.
    Toml,
    /// A session for `kubectl apply`.
    Manifest,
}

/// What to test with.
#[derive(Clone, Debug, Args)]
pub struct SelfTestArgs {
    /// Where the session is made.
    #[arg(long)]
    pub namespace: String,

    /// What its sandbox runs; any image will do.
    #[arg(long)]
    pub image: String,

    /// The storage class of its volumes. Absent: the cluster's default class.
    #[arg(long)]
    pub storage_class: Option<String>,

    /// How many seconds it may take until the session is ready.
    #[arg(long, default_value_t = 180)]
    pub timeout: u32,
}

/// How the helper gets into a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HelperMountArg {
    /// Ask the cluster.
    Auto,
    /// As an image volume.
    Image,
    /// Copied by an init container.
    Copy,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// An empty name is a mistake (of a variable that is not set, say) and must not come to mean all namespaces.
fn namespace(name: &str) -> Result<String, String> {
    let name = name.trim();
    let well_formed = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.starts_with(|c| c != '-')
        && !name.ends_with('-')
        && name.len() <= 63;
    if well_formed { Ok(name.into()) } else { Err(format!("`{name}` is not the name of a namespace")) }
}

/// A CIDR as the API server takes it for an exception: not everything, no bit set beyond the prefix, no IPv4 in IPv6.
fn cidr(text: &str) -> Result<IpNet, String> {
    let is_mapped = |network: &IpNet| matches!(network, IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some());
    let network = text.trim().parse().ok();
    let network = network.filter(|network: &IpNet| network.prefix_len() > 0 && *network == network.trunc());
    network
        .filter(|network| !is_mapped(network))
        .ok_or_else(|| format!("`{text}` is not a CIDR such as 203.0.113.0/24"))
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    if !crate::config::expand::is_name(name) {
        return Err(format!("`{name}` is no name of a variable: upper-case letters, digits and `_`"));
    }
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Cli, Command, RunArgs};

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
    fn privileged_templates_are_allowed_only_by_saying_so() {
        assert!(!run(&[]).unwrap().allow_privileged_templates);
        assert!(run(&["--allow-privileged-templates"]).unwrap().allow_privileged_templates);
    }
}
