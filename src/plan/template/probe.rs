//! The readiness probe of a sandbox with init work. The helper checks that the init work has succeeded, checks that the MCP services
//! accept connections, and performs the check of the sandbox's own readiness probe, since a container can have only one.
//!
//! The sandbox's own probe keeps its numbers: the helper enforces its timeout, and the kubelet all others.
//!
//! Without this probe, a restarted kubelet considers every container ready that has been running for ten seconds, even while its startup
//! probe is running (seen with 1.37).

use k8s_openapi::{
    api::core::v1::{ExecAction, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    api::{SandboxTemplate, meta},
    plan::{Invalid, name::Label},
    protocol::init::{OwnProbe, PROBE_TIMEOUT},
};

/// The probe's period with MCP services, in seconds.
const PERIOD: i32 = 5;

/// The probe's period without MCP services, in seconds: init work that has succeeded stays so.
const IDLE_PERIOD: i32 = 30;

/// How much longer than the helper the kubelet waits, in seconds: the helper has to start, and to report why it gave up.
const MARGIN: i32 = 2;

/// The probe's failure threshold: a service that is busy once is not gone.
const FAILURES: i32 = 2;

/// The readiness probe of the container.
pub fn readiness_probe(template: &SandboxTemplate) -> Probe {
    let own = template.readiness_probe.clone().unwrap_or_default();
    if template.mcp_services.is_empty() && check(template).is_err() {
        return own;
    }
    let asks_nothing = template.mcp_services.is_empty() && template.readiness_probe.is_none();
    Probe {
        exec: Some(ExecAction { command: Some(vec![format!("{}/sandboxd", meta::HELPER_PATH), "ready".into()]) }),
        grpc: None,
        http_get: None,
        tcp_socket: None,
        period_seconds: own.period_seconds.or(Some(if asks_nothing { IDLE_PERIOD } else { PERIOD })),
        failure_threshold: own.failure_threshold.or(Some(FAILURES)),
        timeout_seconds: Some(own.timeout_seconds.unwrap_or(0).max(PROBE_TIMEOUT.into()).saturating_add(MARGIN)),
        ..own
    }
}

/// The timeout of the sandbox's own probe, in seconds. `None` if it has none, which means a second to a kubelet: here it means
/// [`PROBE_TIMEOUT`], so that a check that succeeds alone also succeeds beside an initialiser. Kubernetes reads zero as absent.
pub fn timeout(template: &SandboxTemplate) -> Option<u64> {
    let seconds = template.readiness_probe.as_ref()?.timeout_seconds?;
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

/// The check of the sandbox's own probe, with the host that the kubelet would use.
pub fn asked(template: &SandboxTemplate, label: Option<&Label>) -> Option<OwnProbe> {
    let probe = template.readiness_probe.as_ref()?;
    let host = |host: &Option<String>| host.clone().or_else(|| label.map(Label::to_string)).unwrap_or_default();
    if let Some(exec) = &probe.exec {
        return Some(OwnProbe::Exec { command: exec.command.clone().unwrap_or_default() });
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Some(OwnProbe::Tcp { host: host(&tcp.host), port: port(template, &tcp.port)? });
    }
    let http = probe.http_get.as_ref()?;
    let headers = http.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    let path = http.path.as_deref().unwrap_or("/");
    Some(OwnProbe::Http {
        host: host(&http.host),
        port: port(template, &http.port)?,
        path: if path.starts_with('/') { path.to_string() } else { format!("/{path}") },
        headers: headers.collect(),
    })
}

/// The number of a port, which may be given by its name in the template.
fn port(template: &SandboxTemplate, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = template.ports.iter().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// Checks that the helper can perform the sandbox's own probe instead of the kubelet.
///
/// # Errors
/// When it cannot.
pub fn check(template: &SandboxTemplate) -> Result<(), Invalid> {
    let Some(probe) = &template.readiness_probe else { return Ok(()) };
    let is_https = |http: &HTTPGetAction| http.scheme.as_deref() == Some("HTTPS");
    if probe.grpc.is_some() || probe.http_get.as_ref().is_some_and(is_https) {
        return Err(Invalid::whole("together with mcpServices, it must be exec, tcpSocket or httpGet without TLS."));
    }
    let asks = probe.exec.is_some() || probe.tcp_socket.is_some() || probe.http_get.is_some();
    if asks && asked(template, None).is_none() {
        return Err(Invalid::whole("the port is neither a number nor the name of one of the sandbox's ports."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn template(probe: Value) -> SandboxTemplate {
        let ports = json!([{"name": "web", "containerPort": 8080}]);
        serde_json::from_value(json!({"readinessProbe": probe, "ports": ports, "mcpServices": ["m"]})).unwrap()
    }

    #[test]
    fn what_the_own_probe_asks_is_asked_by_the_helper() {
        let label = Label::of("gdb_mcp").unwrap();
        let asked = |probe: Value| asked(&template(probe), Some(&label));
        assert_eq!(
            asked(json!({"exec": {"command": ["true"]}})),
            Some(OwnProbe::Exec { command: vec!["true".into()] })
        );
        assert_eq!(
            asked(json!({"tcpSocket": {"port": "web"}})),
            Some(OwnProbe::Tcp { host: "gdb-mcp".into(), port: 8080 })
        );
        let http = json!({"httpGet": {"port": 80, "path": "well", "httpHeaders": [{"name": "A", "value": "b"}]}});
        let expected = OwnProbe::Http {
            host: "gdb-mcp".into(),
            port: 80,
            path: "/well".into(),
            headers: vec![("A".into(), "b".into())],
        };
        assert_eq!(asked(http), Some(expected));
        assert_eq!(asked(Value::Null), None);
    }

    #[test]
    fn what_the_helper_cannot_ask_is_refused() {
        let complaint = |probe: Value| check(&template(probe)).map_err(|invalid| invalid.to_string());
        assert!(complaint(json!({"grpc": {"port": 1}})).is_err());
        assert!(complaint(json!({"httpGet": {"port": 1, "scheme": "HTTPS"}})).is_err());
        assert!(complaint(json!({"tcpSocket": {"port": "other"}})).unwrap_err().contains("port"));
        assert!(complaint(json!({"tcpSocket": {"port": 1}})).is_ok());
        assert!(complaint(Value::Null).is_ok() && complaint(json!({"periodSeconds": 3})).is_ok());
    }

    #[test]
    fn what_only_the_kubelet_can_ask_is_left_to_it_where_no_service_is_asked() {
        let mut template = template(json!({"grpc": {"port": 1}}));
        template.mcp_services.clear();
        assert_eq!(readiness_probe(&template), template.readiness_probe.clone().unwrap());
        template.readiness_probe = None;
        let probe = readiness_probe(&template);
        assert!(probe.exec.is_some() && probe.period_seconds == Some(IDLE_PERIOD));
    }

    #[test]
    fn the_numbers_of_the_own_probe_are_kept() {
        let own = template(json!({
            "tcpSocket": {"port": 1}, "initialDelaySeconds": 3, "periodSeconds": 30, "timeoutSeconds": 1, "failureThreshold": 7, "successThreshold": 2,
        }));
        let probe = readiness_probe(&own);
        assert!(probe.tcp_socket.is_none() && probe.exec.is_some());
        let given = own.readiness_probe.clone().unwrap();
        let numbers = |probe: &Probe| {
            [probe.initial_delay_seconds, probe.period_seconds, probe.failure_threshold, probe.success_threshold]
        };
        assert_eq!(numbers(&probe), numbers(&given));
        assert_eq!(timeout(&own), Some(1), "the helper enforces it");
        let absent = readiness_probe(&template(json!({"tcpSocket": {"port": 1}})));
        assert_eq!(numbers(&absent), [None, Some(PERIOD), Some(FAILURES), None]);
    }

    #[test]
    fn the_kubelet_waits_longer_than_the_helper() {
        for (given, helper, kubelet) in [
            (json!(null), None, 12),
            (json!(0), None, 12),
            (json!(1), Some(1), 12),
            (json!(10), Some(10), 12),
            (json!(20), Some(20), 22),
            (json!(i32::MAX), Some(2_147_483_647), i32::MAX),
        ] {
            let template = template(json!({"exec": {"command": ["true"]}, "timeoutSeconds": given}));
            let seen = (timeout(&template), readiness_probe(&template).timeout_seconds);
            assert_eq!(seen, (helper, Some(kubelet)), "{given}");
        }
    }
}
