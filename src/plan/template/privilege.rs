//! Checks for fields that break the isolation of a sandbox: from its node, from the cluster's API, or by the network policy of its
//! session. No client, no clock. The checks apply to the fields of a sandbox and to its pod template.
//!
//! The rules are those of the Pod Security Standard `baseline`; in addition, tokens and network file systems are refused. A debugger's
//! needs are allowed: `SYS_PTRACE`, `SYS_NICE` and the profile `Unconfined` of seccomp or `AppArmor`. Every user is allowed, including
//! root. Clusters that want to allow less can use Pod Security Admission.
//!
//! Types are destructured without `..`: if Kubernetes adds a field, the code does not compile until somebody decides about the field.

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, Lifecycle, LifecycleHandler, PodSecurityContext, PodSpec, Probe, SELinuxOptions,
        SecurityContext, Volume, VolumeProjection,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::plan::{Below, Invalid};

/// Capabilities that a container may add: those of the Pod Security Standard `baseline`, and those that a debugger needs. With the
/// others, a process can leave its container.
const CAPABILITIES: [&str; 15] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
];

/// `SELinux` types under which a container is confined.
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Kernel settings that affect only one Pod.
const SAFE_SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];

/// Kinds of volumes that the kubelet fills from the cluster's own objects and registries, or that an administrator provides.
const VOLUME_KINDS: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Prefixes of labels and annotations with which well-known cluster components break the isolation that a Pod's fields provide. The list
/// cannot be complete: administrators have to protect against other components that they install.
const ESCAPING_METADATA: [(&str, &str); 16] = [
    ("aadpodidbinding", "it gives the Pod credentials of the cloud."),
    ("azure.workload.identity/", "it mounts a token, which a sandbox must not have."),
    ("cni.projectcalico.org/", "it changes the Pod's addresses, past the network policy of its session."),
    ("iam.amazonaws.com/", "it gives the Pod credentials of the cloud."),
    ("io.containers.", "it configures the container runtime of the node."),
    ("io.katacontainers.", "it configures the virtual machine from the inside."),
    ("io.kubernetes.cri-o.", "it configures the container runtime of the node."),
    ("k8s.ovn.org/", "it puts the Pod into another network, past the network policy of its session."),
    ("k8s.v1.cni.cncf.io/", "it puts the Pod into another network, past the network policy of its session."),
    ("networking.gke.io/", "it puts the Pod into another network, past the network policy of its session."),
    ("org.systemd.property.", "it configures systemd on the node."),
    ("ovn.kubernetes.io/", "it puts the Pod into another network, past the network policy of its session."),
    ("seccomp-profile.kubernetes.cri-o.io", "it configures the container runtime of the node."),
    ("sidecar.istio.io/userVolume", "it mounts any volume, including folders of the node."),
    ("vault.hashicorp.com/", "it injects secrets into the Pod; a sandbox may have secrets only from Secret objects."),
    ("v1.multus-cni.io/", "it puts the Pod into another network, past the network policy of its session."),
];

/// A field that is only allowed if the administrator trusts templates.
fn refused(field: &str, why: &str) -> Invalid {
    let advice = "Leave the field out, or run the operator with --allow-privileged-templates.";
    Invalid::new(field, format!("{why} {advice}"))
}

fn refuse_if(asked: bool, field: &str, why: &str) -> Result<(), Invalid> {
    if asked { Err(refused(field, why)) } else { Ok(()) }
}

/// Checks the security context of a container.
///
/// # Errors
/// The first field that is not allowed.
pub fn check_security_context(context: &SecurityContext) -> Result<(), Invalid> {
    let SecurityContext {
        capabilities,
        privileged,
        proc_mount,
        se_linux_options,
        windows_options,
        allow_privilege_escalation: _,
        app_armor_profile: _,
        read_only_root_filesystem: _,
        run_as_group: _,
        run_as_non_root: _,
        run_as_user: _,
        seccomp_profile: _,
    } = context;
    refuse_if(*privileged == Some(true), "privileged", "a sandbox runs untrusted code and must not be privileged.")?;
    let added = capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    if let Some(capability) = added.into_iter().find(|capability| !CAPABILITIES.contains(&capability.as_str())) {
        let why =
            format!("{capability} would break the isolation of the sandbox; allowed are {}.", CAPABILITIES.join(", "));
        return Err(refused("capabilities.add", &why));
    }
    refuse_if(
        proc_mount.as_deref().is_some_and(|mount| mount != "Default"),
        "procMount",
        "a sandbox may only see the Default part of /proc.",
    )?;
    check_selinux(se_linux_options.as_ref())?;
    let host_process = windows_options.as_ref().is_some_and(|options| options.host_process == Some(true));
    refuse_if(host_process, "windowsOptions.hostProcess", "a sandbox must not run as a process of the host.")
}

fn check_selinux(options: Option<&SELinuxOptions>) -> Result<(), Invalid> {
    let Some(SELinuxOptions { role, type_, user, level: _ }) = options else { return Ok(()) };
    let is_said = |word: &Option<String>| word.as_deref().is_some_and(|word| !word.is_empty());
    let confined = type_.as_deref().is_none_or(|selinux_type| SELINUX_TYPES.contains(&selinux_type));
    refuse_if(!confined, "seLinuxOptions.type", "a sandbox is only confined with a container's type.")?;
    refuse_if(is_said(role), "seLinuxOptions.role", "a sandbox is only confined with a container's role.")?;
    refuse_if(is_said(user), "seLinuxOptions.user", "a sandbox is only confined with a container's user.")
}

/// Checks that no port of a container is a port of its node.
///
/// # Errors
/// The field `ports`.
pub fn check_ports(ports: &[ContainerPort]) -> Result<(), Invalid> {
    let on_node = ports.iter().any(|port| port.host_port.is_some_and(|port| port != 0));
    refuse_if(on_node, "ports", "hostPort would take a port of the node; sandboxes are reached by their DNS names.")
}

/// Checks that a probe of a container connects to no other host.
///
/// # Errors
/// The field with the host.
pub fn check_probe(probe: &Probe) -> Result<(), Invalid> {
    let Probe {
        http_get,
        tcp_socket,
        exec: _,
        failure_threshold: _,
        grpc: _,
        initial_delay_seconds: _,
        period_seconds: _,
        success_threshold: _,
        termination_grace_period_seconds: _,
        timeout_seconds: _,
    } = probe;
    check_hosts(
        http_get.as_ref().and_then(|action| action.host.as_deref()),
        tcp_socket.as_ref().and_then(|action| action.host.as_deref()),
    )
}

fn check_handler(handler: &LifecycleHandler) -> Result<(), Invalid> {
    let LifecycleHandler { http_get, tcp_socket, exec: _, sleep: _ } = handler;
    check_hosts(
        http_get.as_ref().and_then(|action| action.host.as_deref()),
        tcp_socket.as_ref().and_then(|action| action.host.as_deref()),
    )
}

fn check_hosts(http_get: Option<&str>, tcp_socket: Option<&str>) -> Result<(), Invalid> {
    let is_said = |host: Option<&str>| host.is_some_and(|host| !host.is_empty());
    let why = "the node itself would connect to that host, past the network policy of the session.";
    refuse_if(is_said(http_get), "httpGet.host", why)?;
    refuse_if(is_said(tcp_socket), "tcpSocket.host", why)
}

/// The containers of a Pod, with their paths below its spec.
pub(super) fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let of = |list: &'static str| {
        move |(position, container): (usize, _)| -> (String, &Container) { (format!("{list}[{position}]"), container) }
    };
    let before = spec.init_containers.iter().flatten().enumerate().map(of("initContainers"));
    before.chain(spec.containers.iter().enumerate().map(of("containers")))
}

/// Checks a whole Pod: its namespaces, its service account, its volumes and each of its containers.
///
/// # Errors
/// The first field that is not allowed.
pub fn check_pod(spec: &PodSpec) -> Result<(), Invalid> {
    let PodSpec {
        automount_service_account_token,
        host_ipc,
        host_network,
        host_pid,
        security_context,
        service_account,
        service_account_name,
        volumes,
        // Checked below, by `containers`.
        containers: _,
        init_containers: _,
        // The API server refuses a Pod that is created with them.
        ephemeral_containers: _,
        // The choice of a node, a runtime or a priority does not break their isolation.
        affinity: _,
        node_name: _,
        node_selector: _,
        overhead: _,
        preemption_policy: _,
        priority: _,
        priority_class_name: _,
        resource_claims: _,
        resources: _,
        runtime_class_name: _,
        scheduler_name: _,
        scheduling_gates: _,
        tolerations: _,
        topology_spread_constraints: _,
        // Only the kubelet uses them.
        image_pull_secrets: _,
        // Their effects are confined to the Pod. `hostUsers: true` is the behaviour of a cluster without user namespaces.
        active_deadline_seconds: _,
        dns_config: _,
        dns_policy: _,
        enable_service_links: _,
        host_aliases: _,
        host_users: _,
        hostname: _,
        os: _,
        readiness_gates: _,
        restart_policy: _,
        set_hostname_as_fqdn: _,
        share_process_namespace: _,
        subdomain: _,
        termination_grace_period_seconds: _,
    } = spec;
    let network = "the sandbox would be in the node's network, past the network policy of its session.";
    refuse_if(*host_network == Some(true), "hostNetwork", network)?;
    refuse_if(*host_pid == Some(true), "hostPID", "the sandbox would see the processes of the node.")?;
    refuse_if(*host_ipc == Some(true), "hostIPC", "the sandbox would share memory with processes of the node.")?;
    let token = "a sandbox has no credentials for the cluster's API.";
    refuse_if(*automount_service_account_token == Some(true), "automountServiceAccountToken", token)?;
    refuse_if(service_account_name.is_some(), "serviceAccountName", token)?;
    refuse_if(service_account.is_some(), "serviceAccount", token)?;
    security_context.as_ref().map_or(Ok(()), check_pod_security_context).below("securityContext")?;
    for (position, volume) in volumes.iter().flatten().enumerate() {
        check_volume(volume).at(position).below("volumes")?;
    }
    containers(spec).try_for_each(|(path, container)| check_container(container).below(path))
}

fn check_pod_security_context(context: &PodSecurityContext) -> Result<(), Invalid> {
    let PodSecurityContext {
        se_linux_options,
        sysctls,
        windows_options,
        app_armor_profile: _,
        fs_group: _,
        fs_group_change_policy: _,
        run_as_group: _,
        run_as_non_root: _,
        run_as_user: _,
        se_linux_change_policy: _,
        seccomp_profile: _,
        supplemental_groups: _,
        supplemental_groups_policy: _,
    } = context;
    check_selinux(se_linux_options.as_ref())?;
    if let Some(sysctl) = sysctls.iter().flatten().find(|sysctl| !SAFE_SYSCTLS.contains(&sysctl.name.as_str())) {
        let why =
            format!("{} may affect other Pods of the node; allowed are {}.", sysctl.name, SAFE_SYSCTLS.join(", "));
        return Err(refused("sysctls", &why));
    }
    let host_process = windows_options.as_ref().is_some_and(|options| options.host_process == Some(true));
    refuse_if(host_process, "windowsOptions.hostProcess", "a sandbox must not run as a process of the host.")
}

fn check_volume(volume: &Volume) -> Result<(), Invalid> {
    refuse_if(volume.host_path.is_some(), "hostPath", "the sandbox would have access to a folder of the node.")?;
    let fields = serde_json::to_value(volume)?;
    let mut kinds = fields.as_object().into_iter().flat_map(|fields| fields.keys()).filter(|field| *field != "name");
    if let Some(kind) = kinds.find(|kind| !VOLUME_KINDS.contains(&kind.as_str())) {
        let why = "the node itself would mount it, past the network policy of the session; use a claim instead.";
        return Err(refused(kind, why));
    }
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    for (position, source) in sources.enumerate() {
        let VolumeProjection {
            service_account_token,
            cluster_trust_bundle: _,
            config_map: _,
            downward_api: _,
            secret: _,
        } = source;
        refuse_if(
            service_account_token.is_some(),
            &format!("projected.sources[{position}].serviceAccountToken"),
            "a sandbox has no credentials for the cluster's API.",
        )?;
    }
    Ok(())
}

fn check_container(container: &Container) -> Result<(), Invalid> {
    let Container {
        lifecycle,
        liveness_probe,
        ports,
        readiness_probe,
        security_context,
        startup_probe,
        args: _,
        command: _,
        env: _,
        env_from: _,
        image: _,
        image_pull_policy: _,
        name: _,
        resize_policy: _,
        resources: _,
        restart_policy: _,
        stdin: _,
        stdin_once: _,
        termination_message_path: _,
        termination_message_policy: _,
        tty: _,
        volume_devices: _,
        volume_mounts: _,
        working_dir: _,
    } = container;
    security_context.as_ref().map_or(Ok(()), check_security_context).below("securityContext")?;
    check_ports(ports.as_deref().unwrap_or_default())?;
    for (path, probe) in
        [("livenessProbe", liveness_probe), ("readinessProbe", readiness_probe), ("startupProbe", startup_probe)]
    {
        probe.as_ref().map_or(Ok(()), check_probe).below(path)?;
    }
    let Some(Lifecycle { post_start, pre_stop, stop_signal: _ }) = lifecycle else { return Ok(()) };
    post_start.as_ref().map_or(Ok(()), check_handler).below("lifecycle.postStart")?;
    pre_stop.as_ref().map_or(Ok(()), check_handler).below("lifecycle.preStop")
}

/// Whether plugins of the node's container runtime (NRI) read the key: they mount folders and devices of the node.
fn is_for_node_plugins(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    domain == "nri.io" || domain.ends_with(".nri.io")
}

/// Checks for labels and annotations that are known to break the isolation that the fields of a Pod provide.
///
/// # Errors
/// The first key that is not allowed.
pub fn check_metadata(metadata: &ObjectMeta) -> Result<(), Invalid> {
    for (field, keys) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        for key in keys.iter().flat_map(|keys| keys.keys()) {
            let opener =
                ESCAPING_METADATA.iter().find(|(beginning, _)| key.starts_with(beginning)).map(|(_, why)| *why);
            if let Some(why) =
                opener.or(is_for_node_plugins(key).then_some("it configures the container runtime of the node."))
            {
                return Err(refused(&format!("{field}[{key}]"), why));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charts_admission_policies_know_the_same_capabilities() {
        let text = include_str!("../../../charts/aigise-operator/templates/admission.yaml");
        let (_, text) = text.split_once(r#"{{- define "aigise-operator.capabilities" -}}"#).unwrap();
        let (list, _) = text.split_once("{{-").unwrap();
        let known: Vec<_> = list.split(',').map(|capability| capability.trim().trim_matches('\'')).collect();
        assert_eq!(known, CAPABILITIES);
    }
}
