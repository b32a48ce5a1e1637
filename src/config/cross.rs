//! Faults that no single value shows: names that nobody has, files that are not there, settings that
//! contradict each other. Looks only at what is valid by itself, so that each fault is told once.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use toml::{Table, Value};

use super::check::Given;
use super::diagnostic::{Diagnostics, Place};
use crate::edge::config::Signed;
use crate::net::{CertificateFiles, TlsError, client_ca, load_certificates};

struct Cross<'a> {
    places: &'a HashMap<String, Range<usize>>,
    diagnostics: &'a mut Diagnostics,
}

/// Tells every such fault of what a file gives.
pub(super) fn check(given: &Given, diagnostics: &mut Diagnostics) {
    let mut cross = Cross { places: &given.places, diagnostics };
    let root = &given.values;
    cross.listeners(root);
    cross.sites(root);
    cross.origins(root);
    cross.admin(root);
}

impl Cross<'_> {
    fn error(&mut self, path: &str, found: impl Into<String>, allowed: &str) {
        let place = self.places.get(path).cloned().map_or(Place::File, Place::At);
        self.diagnostics.error(place, path, found.into(), allowed);
    }

    /// Whether a setting is in the file, valid or not.
    fn is_there(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    fn listeners(&mut self, root: &Table) {
        if !self.is_there("listen") {
            self.error("listen", "no listener", "at least one [[listen]] with an address");
        }
        let mut seen: Vec<&str> = Vec::new();
        for (i, listen) in tables(root, "listen") {
            if flag(listen, "tls") && !self.is_there("certificate") {
                let allowed = "a [[certificate]] with cert and key beside it";
                self.error(&format!("listen[{i}].tls"), "true, but there is no certificate", allowed);
            }
            if flag(listen, "proxy_protocol") && !self.is_there("node.trusted_proxies[0]") {
                let found = "true, but nobody is trusted to speak it";
                self.error(
                    &format!("listen[{i}].proxy_protocol"),
                    found,
                    "node.trusted_proxies that name the proxies",
                );
            }
            let Some(address) = text(listen, "address") else { continue };
            if seen.contains(&address) && !address.ends_with(":0") {
                self.error(&format!("listen[{i}].address"), "the address of another listener", "each once");
            }
            seen.push(address);
        }
        for (i, certificate) in tables(root, "certificate") {
            self.certificate(&format!("certificate[{i}]"), certificate);
        }
    }

    fn certificate(&mut self, path: &str, table: &Table) {
        let (Some(cert), Some(key)) = (text(table, "cert"), text(table, "key")) else { return };
        let files = CertificateFiles { cert: cert.into(), key: key.into() };
        if let Err(error) = load_certificates(&[files]) {
            let part = if matches!(error, TlsError::Key { .. }) { "key" } else { "cert" };
            self.error(&format!("{path}.{part}"), error.to_string(), "PEM files that belong together");
        }
    }

    fn sites(&mut self, root: &Table) {
        let origins: Vec<&str> =
            tables(root, "origin").filter_map(|(_, origin)| text(origin, "name")).collect();
        let mut names: Vec<&str> = Vec::new();
        let mut hosts: Vec<&str> = Vec::new();
        for (i, site) in tables(root, "site") {
            let path = format!("site[{i}]");
            self.once(&format!("{path}.name"), text(site, "name"), &mut names);
            let own: Vec<&str> = list(site, "hosts").collect();
            if own.is_empty() && site.contains_key("hosts") && !self.is_there(&format!("{path}.hosts[0]")) {
                self.error(&format!("{path}.hosts"), "[]", r#"at least one name, or "*""#);
            }
            for host in own.iter().filter(|host| hosts.contains(host)) {
                let found = format!("{host:?}, which another site has");
                self.error(&format!("{path}.hosts"), found, "each host in one site");
            }
            hosts.extend(own);
            self.redirect(&path, site, root);
            self.origin_of(&path, site, &origins);
            self.query(&path, site);
            self.signed(&path, site);
            for (r, rule) in tables(site, "rule") {
                let path = format!("{path}.rule[{r}]");
                self.origin_of(&path, rule, &origins);
                self.query(&path, rule);
                self.signed(&path, rule);
            }
        }
    }

    /// Plain requests are sent on to TLS: somebody has to speak it.
    fn redirect(&mut self, path: &str, site: &Table, root: &Table) {
        let path = format!("{path}.https");
        let speaks_tls = tables(root, "listen").any(|(_, listen)| flag(listen, "tls"));
        if text(site, "https") == Some("redirect") && !speaks_tls && !self.is_there("node.trusted_proxies[0]")
        {
            let place = self.places.get(&path).cloned().map_or(Place::File, Place::At);
            let found = "\"redirect\", but no [[listen]] has tls and node.trusted_proxies is empty: every request is redirected";
            self.diagnostics.warning(place, &path, found.into());
        }
    }

    fn once<'v>(&mut self, path: &str, name: Option<&'v str>, seen: &mut Vec<&'v str>) {
        let Some(name) = name else { return };
        if seen.contains(&name) {
            self.error(path, format!("{name:?} again"), "each name once");
        }
        seen.push(name);
    }

    fn origin_of(&mut self, path: &str, table: &Table, origins: &[&str]) {
        if let Some(name) = text(table, "origin").filter(|name| !origins.contains(name)) {
            let found = format!("{name:?}, which is no origin");
            let allowed = if origins.is_empty() { "an [[origin]] of that name" } else { &origins.join(", ") };
            self.error(&format!("{path}.origin"), found, allowed);
        }
    }

    fn query(&mut self, path: &str, table: &Table) {
        let query = table.get("cache").and_then(|cache| cache.get("query")).and_then(Value::as_table);
        let Some(query) = query else { return };
        let path = format!("{path}.cache.query");
        if let Some(mode @ ("allow" | "deny")) = text(query, "mode")
            && !self.is_there(&format!("{path}.names"))
        {
            self.error(&path, format!("mode {mode:?} without names"), r#"names = ["v", "@tracking"]"#);
        }
    }

    fn signed(&mut self, path: &str, table: &Table) {
        let signed = table.get("access").and_then(|access| access.get("signed")).and_then(Value::as_table);
        let Some(file) = signed.and_then(|signed| text(signed, "secret_file")) else { return };
        if let Err(error) = Signed::read(Path::new(file), "") {
            let path = format!("{path}.access.signed.secret_file");
            self.error(&path, format!("{file:?}: {error}"), "a file with a secret of 16 bytes at least");
        }
    }

    fn origins(&mut self, root: &Table) {
        let mut names: Vec<&str> = Vec::new();
        for (i, origin) in tables(root, "origin") {
            let path = format!("origin[{i}]");
            self.once(&format!("{path}.name"), text(origin, "name"), &mut names);
            let has_servers = self.is_there(&format!("{path}.servers"));
            match (text(origin, "dir"), self.is_there(&format!("{path}.dir")), has_servers) {
                (_, false, false) => self.error(&path, "neither servers nor dir", "one of them"),
                (_, true, true) => self.error(&format!("{path}.dir"), "servers as well", "one of them"),
                (Some(dir), ..) if !Path::new(dir).is_dir() => {
                    let found = format!("{dir:?}, which is no directory");
                    self.error(&format!("{path}.dir"), found, "a directory that can be read");
                }
                _ => {}
            }
            if has_servers && tables(origin, "servers").next().is_none() && origin.contains_key("servers") {
                self.error(&format!("{path}.servers"), "[]", "at least one { url = … }");
            }
            if let Some(tls) = origin.get("tls").and_then(Value::as_table) {
                self.origin_tls(&format!("{path}.tls"), tls);
            }
        }
    }

    fn origin_tls(&mut self, path: &str, tls: &Table) {
        if self.is_there(&format!("{path}.cert")) != self.is_there(&format!("{path}.key")) {
            self.error(path, "cert or key alone", "both or none");
        }
        for name in ["ca", "cert", "key"] {
            if text(tls, name).is_some_and(|file| !Path::new(file).is_file()) {
                self.error(&format!("{path}.{name}"), "a file that does not exist", "a PEM file");
            }
        }
    }

    fn admin(&mut self, root: &Table) {
        let Some(admin) = root.get("admin").and_then(Value::as_table) else { return };
        let address = text(admin, "address").and_then(|text| text.parse::<std::net::SocketAddr>().ok());
        if let Some(address) = address.filter(|address| !address.ip().is_loopback())
            && !self.is_there("admin.tls")
            && !flag(admin, "insecure")
        {
            let found = format!("{address}, which is not loopback, without TLS");
            self.error("admin.address", found, "a loopback address, admin.tls, or insecure = true");
        }
        if let Some(tls) = admin.get("tls").and_then(Value::as_table) {
            self.certificate("admin.tls", tls);
            if let Some(Err(error)) = text(tls, "client_ca").map(|ca| client_ca(ca.as_ref())) {
                self.error("admin.tls.client_ca", error.to_string(), "a PEM file with certificates");
            }
        }
        let sites: Vec<&str> = tables(root, "site").filter_map(|(_, site)| text(site, "name")).collect();
        for (i, token) in tables(admin, "token") {
            for site in list(token, "sites").filter(|site| !sites.contains(site)) {
                let found = format!("{site:?}, which is no site");
                self.error(&format!("admin.token[{i}].sites"), found, &sites.join(", "));
            }
        }
    }
}

fn tables<'a>(table: &'a Table, name: &str) -> impl Iterator<Item = (usize, &'a Table)> {
    let array = table.get(name).and_then(Value::as_array).into_iter().flatten();
    array.enumerate().filter_map(|(i, value)| Some((i, value.as_table()?)))
}

fn list<'a>(table: &'a Table, name: &str) -> impl Iterator<Item = &'a str> {
    table.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn text<'a>(table: &'a Table, name: &str) -> Option<&'a str> {
    table.get(name)?.as_str()
}

fn flag(table: &Table, name: &str) -> bool {
    table.get(name).and_then(Value::as_bool).unwrap_or(false)
}
