//! Certificates are renewed under running connections; the admin API over TLS.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::request::get;
use crate::support::tls::{Ca, Issued};
use crate::support::{eventually, holds_within};

/// The certificate that a client is shown which has no session to resume.
fn served(node: &Node, ca: &Ca) -> Vec<u8> {
    let config = ca.client(&["http/1.1"]);
    let mut client = Client::connect_tls(node.https(), "test.example", &config).expect("a handshake");
    client.exchange(&get("/a")).assert_status(200);
    client.session().peer_certificates().expect("a certificate")[0].to_vec()
}

/// The files that the configuration names.
fn files(node: &Node) -> (PathBuf, PathBuf) {
    let text = fs::read_to_string(node.config()).expect("the configuration");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = \""))).expect("a line");
        PathBuf::from(line.trim_end_matches('"'))
    };
    (value("cert"), value("key"))
}

#[test]
fn a_renewed_pair_is_used_and_a_bad_one_is_not() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let (cert, key) = files(&node);
    let first = served(&node, &ca);
    let client = ca.client(&["http/1.1"]);
    let mut open = Client::connect_tls(node.https(), "test.example", &client).expect("a handshake");
    open.exchange(&get("/a")).assert_status(200);
    let ends = node.metric("larder_certificate_not_after_timestamp_seconds");
    assert!(ends > 1_800_000_000.0, "{ends}");

    let dir = crate::support::temp::TempDir::new();
    let Issued { cert: new_cert, key: new_key } = ca.issue(&["test.example"], dir.path());
    fs::rename(&new_cert, &cert).expect("a new certificate");
    // Until the key is there too, the old pair is served.
    assert_eq!(served(&node, &ca), first);
    fs::rename(&new_key, &key).expect("its key");
    eventually("the new one is served", || served(&node, &ca) != first);
    let second = served(&node, &ca);
    open.exchange(&get("/a")).assert_status(200).assert_hit();

    // A key of another certificate, then no certificate at all.
    let other = ca.issue(&["test.example"], dir.path());
    let failed = node.metric("larder_certificate_reloads_total{outcome=\"failed\"}");
    fs::copy(&other.key, &key).expect("a key");
    node.await_metric("larder_certificate_reloads_total{outcome=\"failed\"}", failed + 1.0);
    assert_eq!(node.metric("larder_certificate_outdated"), 1.0);
    fs::write(&cert, "nothing").expect("a file");
    node.await_metric("larder_certificate_reloads_total{outcome=\"failed\"}", failed + 2.0);
    assert_eq!(served(&node, &ca), second);
    assert!(node.lines().iter().any(|line| line.contains("a certificate can't be used")));
    // A reload is whole or not at all, certificates included.
    node.reload().assert_status(422);

    fs::copy(&other.cert, &cert).expect("its certificate");
    assert!(holds_within(crate::support::PATIENCE, || served(&node, &ca) != second));
    eventually("all is well again", || node.metric("larder_certificate_outdated") == 0.0);
    node.assert_no_panic();
}

#[test]
fn links_that_are_put_elsewhere_are_noticed() {
    let (ca, origin) = (Ca::new(), Origin::with("/a", FRESH, "a"));
    let node = node(&origin).tls(&ca, &["test.example"]).start();
    let (cert, key) = files(&node);
    let dir = crate::support::temp::TempDir::new();
    // As mounted secrets are: a link to a folder, replaced at once.
    let folder = |n: u32| {
        let folder = dir.path().join(n.to_string());
        fs::create_dir(&folder).expect("a folder");
        let Issued { cert, key } = ca.issue(&["test.example"], &folder);
        fs::rename(cert, folder.join("tls.crt")).expect("a certificate");
        fs::rename(key, folder.join("tls.key")).expect("a key");
        let link = dir.path().join("new");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        fs::rename(&link, dir.path().join("current")).expect("a link in place");
    };
    folder(1);
    let text = fs::read_to_string(node.config()).expect("the configuration");
    let linked = |name: &str| dir.path().join("current").join(name).display().to_string();
    let text = text.replace(&cert.display().to_string(), &linked("tls.crt"));
    let text = text.replace(&key.display().to_string(), &linked("tls.key"));
    fs::write(node.config(), text).expect("the configuration");
    let before = served(&node, &ca);
    node.reload().assert_status(200);
    let first = served(&node, &ca);
    assert_ne!(first, before, "a reload takes other files");
    folder(2);
    eventually("the link is followed", || served(&node, &ca) != first);
}

#[test]
fn the_admin_api_speaks_tls_and_asks_for_certificates() {
    let (ca, clients, origin) = (Ca::new(), Ca::new(), Origin::with("/a", FRESH, "a"));
    let builder = node(&origin);
    let Issued { cert, key } = ca.issue(&["localhost"], builder.path());
    let client_ca = clients.write(builder.path());
    let tls = format!(
        "tls = {{ cert = \"{}\", key = \"{}\", client_ca = \"{}\" }}",
        cert.display(),
        key.display(),
        client_ca.display()
    );
    let dir = crate::support::temp::TempDir::new();
    let shown = clients.issue(&["operator"], dir.path());
    let node = builder.admin(&tls).start();
    let ask = |config: &Arc<ClientConfig>| {
        let mut client = Client::connect_tls(node.admin(), "localhost", config).ok()?;
        client.send(&get("/healthz").host("localhost").bytes());
        client.try_response("GET").ok().map(|response| response.status)
    };
    assert_eq!(ask(&ca.client(&["http/1.1"])), None, "without a certificate");
    assert_eq!(ask(&ca.client_showing(&ca.issue(&["operator"], dir.path()))), None, "of another authority");
    assert_eq!(ask(&ca.client_showing(&shown)), Some(200));
}
