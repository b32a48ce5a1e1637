//! TLS towards origins: another node is the origin here, with a certificate of our own authority.

use crate::support::node::{Builder, Node, bare, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::tls::Ca;

/// A node with TLS in front of `origin`, known as `test.example`.
fn secure(origin: &Origin, ca: &Ca) -> Node {
    node(origin).tls(ca, &["test.example"]).start()
}

/// A node whose origin is the TLS listener of another one.
fn in_front_of(inner: &Node, tls: &str) -> Builder {
    let url = format!("https://{}", inner.https());
    bare().sites(&format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nservers = [{{ url = \"{url}\" }}]\n{tls}\n"
    ))
}

#[test]
fn a_trusted_origin_is_asked_with_the_clients_host_as_sni() {
    let (origin, ca) = (Origin::with("/a", FRESH, "over TLS"), Ca::new());
    let inner = secure(&origin, &ca);
    let outer = bare();
    let file = ca.write(outer.path());
    let outer = in_front_of(&inner, &format!("tls = {{ ca = \"{}\" }}", file.display())).start();
    outer.get("/a").assert_status(200).assert_body("over TLS");
    outer.get("/a").assert_hit();
    // Each hop signed.
    assert_eq!(origin.last("/a").joined("via").matches("1.1 larder").count(), 2);
}

#[test]
fn an_origin_that_is_not_trusted_is_a_502_and_says_why() {
    let (origin, ca) = (Origin::with("/a", FRESH, "reached"), Ca::new());
    let inner = secure(&origin, &ca);
    let outer = in_front_of(&inner, "").start();
    let answer = outer.get("/a");
    answer.assert_status(502).assert_own_error();
    assert!(answer.joined("proxy-status").contains("tls_"), "{:?}", answer.fields);
    assert_eq!(origin.total(), 0);
}

#[test]
fn a_certificate_for_another_name_is_a_502_unless_verification_is_off() {
    let (origin, ca) = (Origin::with("/a", FRESH, "reached"), Ca::new());
    let inner = node(&origin).tls(&ca, &["other.example"]).start();
    let files = bare();
    let file = ca.write(files.path());
    let trusting = in_front_of(&inner, &format!("tls = {{ ca = \"{}\" }}", file.display())).start();
    trusting.get("/a").assert_status(502);
    assert_eq!(origin.total(), 0);
    let named = format!("host = \"other.example\"\ntls = {{ ca = \"{}\" }}", file.display());
    in_front_of(&inner, &named).start().get("/a").assert_status(200);
    in_front_of(&inner, "tls = { verify = false }").start().get("/a").assert_status(200);
}

/// It may close, answer nonsense, or wait for a request that never comes: never a hang, never a 200.
#[test]
fn a_plain_origin_behind_an_https_url_is_an_error_of_the_gateway() {
    let origin = Origin::with("/a", FRESH, "reached");
    let url = format!("https://{}", origin.address());
    let outer = bare().sites(&format!(
        "[[site]]\nname = \"a\"\nhosts = [\"*\"]\norigin = \"a\"\n\
         [[origin]]\nname = \"a\"\nservers = [{{ url = \"{url}\" }}]\n"
    ));
    let answer = outer.start().get("/a");
    assert!([502, 504].contains(&answer.status), "{}", answer.status);
    answer.assert_own_error();
}
