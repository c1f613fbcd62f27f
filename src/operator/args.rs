//! What the process is told.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};

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

    /// Where probes and metrics are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

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
