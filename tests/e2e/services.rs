//! MCP services: a sandbox is ready when they answer, and for as long as they do.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, config_map, list, message, sandbox, session},
};

/// Has Python.
pub const PYTHON_IMAGE: &str = "localhost/crash-triage:dev";

/// An MCP server over SSE, as small as it can be. It listens while there is a file `/shared/on`, and does what is in it: `mcp`,
/// `500`, or `page` for something that is not an event stream. `/shared/sessions` has a line for each session.
pub const SERVER: &str = r#"
import http.server, json, os, queue, socketserver, sys, threading, time
streams = {}
def mode():
    try: return open("/shared/on").read().strip()
    except OSError: return ""
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if mode() == "500": return self.send_error(500)
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if mode() == "page" else "text/event-stream")
        self.end_headers()
        if mode() == "page": return self.wfile.write(b"<p>hello</p>")
        print("GET", file=open("/shared/sessions", "a"))
        name, mine = str(id(self)), queue.Queue()
        streams[name] = mine
        self.wfile.write(f"event: endpoint\ndata: /messages?session={name}\n\n".encode())
        while mode() == "mcp":
            try: self.wfile.write(f"event: message\ndata: {mine.get(timeout=0.2)}\n\n".encode())
            except queue.Empty: pass
            except OSError: return
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.end_headers()
        if "id" in asked:
            info = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {}, "serverInfo": {"name": "e2e", "version": "1"}}
            streams[self.path.split("session=")[1]].put(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": info}))
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = allow_reuse_address = True
server = None
while True:
    if mode() and not server:
        server = Server(("0.0.0.0", int(sys.argv[1])), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    if not mode() and server:
        server.shutdown(); server.server_close(); server = None
    time.sleep(0.05)
"#;

/// A sandbox that offers the service on this port, on request.
fn server(port: u16) -> Value {
    json!({"image": PYTHON_IMAGE, "command": ["python3", "-c", SERVER, port.to_string()]})
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_is_ready_while_its_service_answers() {
    let ground = Ground::new("services");
    let mut gdb = server(1111);
    gdb["mcpServices"] = json!(["gdb"]);
    gdb["ports"] = json!([{"name": "mcp", "containerPort": 1111}]);
    // Without a shell's help, in an image that has nothing but busybox: another one's service is reached by its DNS name.
    let waits = json!({"image": ROOT_IMAGE, "mcpServices": ["gdb"]});
    let services = json!({"gdb": {"sandbox": "gdb_mcp", "port": 1111}});
    ground.apply(&session("s", json!({"sandboxes": {"gdb_mcp": gdb, "main": waits}, "mcpServices": services})));
    ground.until_not_ready("asb/s--gdb-mcp", "Initializing");
    ground.until_not_ready("asb/s--main", "Initializing");
    let status = ground.run("s--main", "until /aigise/sandboxd status | grep refused; do sleep 0.1; done");
    assert!(status.contains("connection refused"), "{status}");

    ground.run("s--gdb-mcp", "echo mcp >/shared/on");
    let ready = ground.until_ready("asb/s--gdb-mcp");
    let url = format!("http://gdb-mcp.s.{}.svc:1111/sse", ground.namespace);
    assert_eq!(ready["status"]["endpoints"], json!({"gdb": url}));
    ground.until_ready("asess/s");
    assert_eq!(ground.get("asb/s--main")["status"]["endpoints"], Value::Null, "it is in the other one");
    let sessions = || ground.run("s--gdb-mcp", "wc -l </shared/sessions");
    assert_eq!(sessions(), "2", "a handshake by each of the two");

    // What dies takes `ready` away from all that need it, and gives it back.
    ground.run("s--gdb-mcp", "rm /shared/on");
    let lost = ground.until_not_ready("asb/s--gdb-mcp", "NotReady");
    assert!(message(&lost).contains("gdb") && lost["status"]["state"] == "uninitialized", "{}", message(&lost));
    assert_eq!(lost["status"]["init"]["outcome"], "Succeeded", "what was done stays done");
    ground.until_not_ready("asess/s", "SandboxesNotReady");
    let warning = "involvedObject.name=s--gdb-mcp,reason=Unhealthy";
    let events = ground.kubectl(&["get", "events", "--field-selector", warning, "-o", "jsonpath={.items[*].message}"]);
    assert!(events.text().contains("connection refused"), "the events of the Pod say what does not answer");
    ground.run("s--gdb-mcp", "echo mcp >/shared/on");
    ground.until_ready("asess/s");
    assert_eq!(ground.get("asb/s--gdb-mcp")["status"]["restarts"], Value::Null);
    assert_eq!(sessions(), "2", "no probe has begun another");
}

/// An MCP server over streamable HTTP with one path and no event stream. `/shared/asked` has all methods.
const HTTP_SERVER: &str = r#"
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def asked(self, status, headers={}, body=b""):
        print(self.command, self.path, file=open("/shared/asked", "a"))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items(): self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self): self.asked(405)
    def do_DELETE(self): self.asked(200)
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "id" not in message: return self.asked(202)
        info = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "e2e", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": info}).encode()
        self.asked(200, {"Content-Type": "application/json", "Mcp-Session-Id": "one"}, body)
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"#;

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_service_over_streamable_http_is_asked_once_and_its_session_ended() {
    let ground = Ground::new("streamable");
    let command = json!(["python3", "-c", HTTP_SERVER, "1111"]);
    let tool = json!({"image": PYTHON_IMAGE, "command": command, "mcpServices": ["auto", "http"]});
    let services = json!({
        "auto": {"sandbox": "tool", "port": 1111, "path": "/auto"},
        "http": {"sandbox": "tool", "port": 1111, "transport": "HTTP"},
    });
    ground.apply(&session("s", json!({"sandboxes": {"tool": tool}, "mcpServices": services})));
    ground.until_ready("asess/s");
    let url = |path: &str| format!("http://tool.s.{}.svc:1111{path}", ground.namespace);
    let endpoints = ground.get("asb/s--tool")["status"]["endpoints"].clone();
    assert_eq!(endpoints, json!({"auto": url("/auto"), "http": url("/mcp")}));
    let asked = ground.run("s--tool", "sort /shared/asked");
    let expected = "DELETE /auto\nDELETE /mcp\nGET /auto\nPOST /auto\nPOST /auto\nPOST /mcp\nPOST /mcp";
    assert_eq!(asked, expected);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_service_that_never_answers_well_fails_the_sandbox_with_what_it_answers() {
    let ground = Ground::new("bad-services");
    let with = |port: u16| {
        let mut sandbox = server(port);
        sandbox["init"] = json!({"timeout": "4s"});
        sandbox
    };
    let mut sandboxes = json!({"closed": with(1111), "error": with(1112), "page": with(1113)});
    for (sandbox_type, sandbox) in sandboxes.as_object_mut().unwrap() {
        sandbox["mcpServices"] = json!([sandbox_type]);
    }
    let script = |mode: &str| json!([{"name": "on", "command": ["sh", "-c", format!("echo {mode} >/shared/on")]}]);
    // Each listens as the last one wrote; one after the other.
    sandboxes["error"]["init"]["steps"] = script("500");
    sandboxes["page"]["init"]["steps"] = script("page");
    sandboxes["closed"]["command"] = json!(["sleep", "100000"]);
    let services = json!({
        "closed": {"sandbox": "closed", "port": 1111}, "error": {"sandbox": "error", "port": 1112, "path": "/events"},
        "page": {"sandbox": "page", "port": 1113},
    });
    for (only, words) in [("closed", "connection refused"), ("error", "status 500"), ("page", "text/html")] {
        let sandboxes = json!({only: sandboxes[only]});
        let services = json!({only: services[only]});
        ground.apply(&session(only, json!({"sandboxes": sandboxes, "mcpServices": services})));
        let failed = ground.until_not_ready(&format!("asb/{only}--{only}"), "InitFailed");
        assert_eq!(failed["status"]["init"]["step"], format!("service {only}"));
        assert!(message(&failed).contains(words), "{}", message(&failed));
        assert_eq!(failed["status"]["state"], "error");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_probe_of_ones_own_counts_as_well() {
    let ground = Ground::new("own-probe");
    let mut main = server(1111);
    main["mcpServices"] = json!(["m"]);
    main["readinessProbe"] = json!({"exec": {"command": ["test", "-e", "/shared/well"]}, "periodSeconds": 1});
    let services = json!({"m": {"sandbox": "main", "port": 1111}});
    ground.apply(&session("s", json!({"sandboxes": {"main": main}, "mcpServices": services})));
    ground.until_not_ready("asb/s--main", "Initializing");
    ground.run("s--main", "echo mcp >/shared/on");
    ground.until_not_ready("asb/s--main", "NotReady");
    ground.run("s--main", "touch /shared/well");
    ground.until_ready("asess/s");
    ground.run("s--main", "rm /shared/well");
    ground.until_not_ready("asb/s--main", "NotReady");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_cannot_be_asked_is_refused_with_its_field() {
    let ground = Ground::new("no-service");
    let refused = |name: &str, spec: Value, words: &str| {
        ground.apply(&session(name, spec));
        let seen = ground.until_not_ready(&format!("asess/{name}"), "InvalidSpec");
        assert!(message(&seen).contains(words), "{}", message(&seen));
    };
    let needs = json!({"main": {"image": ROOT_IMAGE, "mcpServices": ["gdb"]}});
    refused("unknown", json!({"sandboxes": needs}), "mcpServices: gdb is not among");
    let services = json!({"gdb": {"sandbox": "gdb_mcp", "port": 1111}});
    refused("nowhere", json!({"sandboxes": needs, "mcpServices": services}), "spec.mcpServices.gdb.sandbox: gdb_mcp");
    let mut grpc = needs.clone();
    grpc["main"]["readinessProbe"] = json!({"grpc": {"port": 1}});
    let services = json!({"gdb": {"sandbox": "main", "port": 1111}});
    refused("grpc", json!({"sandboxes": grpc, "mcpServices": services}), "readinessProbe");
    ground.apply(&sandbox("alone", json!({"type": "main", "image": ROOT_IMAGE, "mcpServices": ["gdb"]})));
    let seen = ground.until_not_ready("asb/alone", "InvalidSpec");
    assert!(message(&seen).contains("spec.mcpServices"), "{}", message(&seen));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_types_of_the_framework_do_what_they_do_there_over_the_scripts_of_the_session() {
    let ground = Ground::new("profiles");
    // A file each: the images have other users, and who comes first makes it.
    let script = |what: &str| format!("touch /shared/{what}");
    let scripts = config_map(
        "scripts",
        &[
            ("compile_debug.sh", &(script("debug") + "; echo mcp >/shared/on")),
            ("compile_aflpp.sh", &format!("[ -e /shared/main ] && {}", script("aflpp"))),
        ],
    );
    let volumes = json!({"scripts": {"sources": [{"configMap": {"name": "scripts"}, "path": "ossfuzz"}]}});
    let sandboxes = json!({
        "main": {"image": ROOT_IMAGE, "init": {"steps": [{"name": "first", "command": ["sh", "-c", script("main")]}]}},
        "gdb_mcp": server(1111),
        "fuzz": {"image": PYTHON_IMAGE},
        "coverage": {"image": ROOT_IMAGE, "init": {"profile": "None"}},
    });
    ground.apply(&list(&[scripts, session("s", json!({"sandboxes": sandboxes, "volumes": volumes}))]));
    ground.until_ready("asess/s");
    // fuzz waits for main, or its step would have failed.
    ground.run("s--main", "ls /shared/main /shared/aflpp /shared/debug");
    let gdb = ground.get("asb/s--gdb-mcp");
    assert_eq!(gdb["spec"]["init"]["steps"][0]["name"], "compile-debug", "what a type has is there to be seen");
    assert!(gdb["status"]["endpoints"]["gdb_mcp"].as_str().unwrap().ends_with(":1111/sse"));
    assert_eq!(ground.get("asb/s--coverage")["spec"]["init"], json!({"profile": "None"}));
}
