use super::*;
use crate::rules::encoding::Coding;

const MINIMAL: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[[site]]
name = "shop"
hosts = ["*"]
origin = "shop"
[[origin]]
name = "shop"
servers = [{ url = "http://127.0.0.1:9" }]
"#;

fn faults(text: &str) -> Vec<String> {
    let checked = check_text("x.toml", text);
    assert_eq!(checked.config.is_some(), checked.diagnostics.iter().all(|d| d.severity == Severity::Warning));
    checked.diagnostics.iter().map(ToString::to_string).collect()
}

fn valid(text: &str) -> Config {
    let checked = check_text("x.toml", text);
    assert!(checked.diagnostics.is_empty(), "{:#?}", checked.diagnostics);
    checked.config.expect("no diagnostic, so a configuration")
}

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let config = valid(MINIMAL);
    assert_eq!(config.name, "larder");
    assert_eq!(config.limits.uri_bytes, 8192);
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.sites[0].default.policy, crate::rules::policy::SitePolicy::default());
    assert_eq!(config.origins[0].connect_timeout, Duration::from_secs(2));
    assert!(config.metrics.is_none());
}

#[test]
fn every_fault_is_told_with_its_place() {
    let text = r#"
[nodde]
name = "x"
[limits]
header_bytes = "lots"
idle_timeout = 30
[[listen]]
address = "localhost"
[[site]]
name = "shop"
hosts = ["Shop.Example", "*"]
origin = "shop"
[site.cache]
max_tll = "1d"
profile = "fast"
"#;
    let faults = faults(text);
    let has = |start: &str, middle: &str| {
        assert!(
            faults.iter().any(|f| f.starts_with(start) && f.contains(middle)),
            "{start} {middle}: {faults:#?}"
        );
    };
    has("x.toml:2:2:", "did you mean `node`?");
    has("x.toml:5:16:", "limits.header_bytes: found: \"lots\"; allowed: a size");
    has("x.toml:6:16:", "limits.idle_timeout: found: 30; allowed: a duration");
    has("x.toml:8:11:", "listen[0].address");
    has("x.toml:11:10:", "site[0].hosts[0]");
    has("x.toml:14:1:", "did you mean `max_ttl`?");
    has("x.toml:15:11:", "\"edge\" or \"rfc\"");
    has("x.toml:1:1:", "origin: found: it is missing");
    // And one that only the whole shows: the origin that the site names is not there.
    has("x.toml:12:10:", "which is no origin");
    assert_eq!(faults.len(), 9, "{faults:#?}");
}

#[test]
fn what_only_the_whole_shows_is_told_too() {
    let text =
        MINIMAL.replace("origin = \"shop\"", "origin = \"shoop\"") + "[admin]\naddress = \"0.0.0.0:8090\"\n";
    let faults = faults(&text);
    assert!(
        faults[0].contains("site[0].origin: found: \"shoop\", which is no origin; allowed: shop"),
        "{faults:#?}"
    );
    assert!(faults[1].contains("admin.address"), "{faults:#?}");
    assert_eq!(faults.len(), 2);
}

#[test]
fn syntax_errors_have_a_place() {
    let faults = faults("[node\nname = \"a\n");
    assert!(faults[0].starts_with("x.toml:1:"), "{faults:#?}");
}

#[test]
fn a_rule_inherits_what_it_does_not_say() {
    let text = MINIMAL.replace(
        "[[origin]]",
        "[site.cache]\nprofile = \"rfc\"\nmax_ttl = \"1d\"\n[[site.rule]]\npath = [\"/a/*\"]\ncache = { override_ttl = \"5s\" }\n[[site.rule]]\npass = true\n[[origin]]",
    );
    let config = valid(&text);
    let rule = &config.sites[0].rules[0].treatment;
    assert_eq!(rule.policy.override_ttl_ms, Some(5000));
    assert_eq!(rule.policy.max_ttl_ms, 86_400_000);
    assert_eq!(rule.policy.set_cookie, crate::rules::policy::SetCookie::Store);
    assert_eq!(rule.range_miss, edge::config::RangeMiss::Forward);
    assert_eq!(rule.origin, "shop");
    assert!(config.sites[0].rules[1].treatment.pass);
    assert_eq!(config.sites[0].default.policy.override_ttl_ms, None);
}

#[test]
fn what_is_not_there_yet_is_a_warning_and_what_would_be_unsafe_without_an_error() {
    let warned = faults(&MINIMAL.replace("[[origin]]", "[site.ids]\nfastly = \"a\"\n[[origin]]"));
    assert!(!warned.is_empty() && warned.iter().all(|w| w.contains("warning")), "{warned:#?}");
    let refused = faults(
        &(MINIMAL.to_owned()
            + "[admin]\ntls = { cert = \"\", key = \"\", client_ca = \"/nonexistent/ca\" }\n"),
    );
    let of_ca = refused.iter().find(|fault| fault.contains("client_ca"));
    assert!(of_ca.is_some_and(|fault| fault.contains("/nonexistent/ca")), "{refused:#?}");
}

#[test]
fn what_is_compressed() {
    let compress =
        |lines: &str| MINIMAL.replace("[[origin]]", &format!("[site.compress]\n{lines}\n[[origin]]"));
    let config = valid(&compress(
        "encodings = [\"gzip\", \"br\", \"gzip\"]\ntypes = [\"text/*\"]\nmin_size = \"1KiB\"",
    ));
    let default = &config.sites[0].default.compress;
    assert_eq!(default.codings, [Coding::Gzip, Coding::Br]);
    assert_eq!((default.min_bytes, default.max_bytes), (1024, 64 << 20));
    let rule = compress("encodings = [\"br\"]")
        .replace("[[origin]]", "[[site.rule]]\ncompress = { min_size = \"0\" }\n[[origin]]");
    let of_rule = valid(&rule).sites[0].rules[0].treatment.compress.clone();
    assert_eq!((&*of_rule.codings, of_rule.min_bytes), (&[Coding::Br][..], 0));
    for bad in [
        "encodings = [\"deflate\"]",
        "types = [\"Text/CSS\"]",
        "types = [\"css\"]",
        "types = [\"*/*\"]",
        "max_size = \"-1\"",
    ] {
        let found = faults(&compress(bad));
        assert!(
            found.iter().any(|fault| fault.contains("site[0].compress.") && fault.contains("error")),
            "{bad}: {found:#?}"
        );
    }
}

#[test]
fn what_lets_clients_in_is_checked_before_anybody_comes() {
    let proxied = MINIMAL.replace("[[site]]\n", "proxy_protocol = true\n[[site]]\n");
    let found = faults(&proxied);
    assert!(found[0].contains("listen[0].proxy_protocol: found: true, but nobody is trusted"), "{found:#?}");
    valid(&(proxied + "[node]\ntrusted_proxies = [\"10.0.0.0/8\"]\n"));

    let dir = std::env::temp_dir().join(format!("larder-secret-{}", std::process::id()));
    let signed = |text: &str| {
        std::fs::write(&dir, text).unwrap();
        let table = format!("[site.access]\nsigned = {{ secret_file = {dir:?} }}\n[[origin]]");
        MINIMAL.replace("[[origin]]", &table)
    };
    let found = faults(&signed("too short\n"));
    assert!(
        found[0].contains("site[0].access.signed.secret_file") && found[0].contains("9 bytes"),
        "{found:#?}"
    );
    let config = valid(&signed("a secret of some length\n"));
    assert!(config.sites[0].default.access.signed.is_some());
    std::fs::remove_file(&dir).unwrap();
    let found =
        faults(&MINIMAL.replace(
            "[[origin]]",
            &format!("[site.access]\nsigned = {{ secret_file = {dir:?} }}\n[[origin]]"),
        ));
    assert!(found[0].contains("No such file"), "{found:#?}");
}

#[test]
fn the_shipped_example_is_valid_and_names_every_setting_with_its_default() {
    let text = include_str!("../../config/larder.toml");
    // The example's paths and certificates are not on this machine.
    let checked = check_text("config/larder.toml", text);
    let errors: Vec<_> = checked.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // Every setting stands there with the default of the table, or at least by its name.
    let mut missing = Vec::new();
    names(settings::ROOT, &mut |setting| {
        let name = setting.name;
        let is_there = match (setting.default, setting.kind) {
            (_, kind::Kind::Table(_) | kind::Kind::Tables(_)) => {
                [format!("[{name}]"), format!(".{name}]"), format!("{name} = ")]
                    .iter()
                    .any(|n| text.contains(n))
            }
            (settings::Default::Value(value), _) => text.contains(&format!("{name} = {value}")),
            _ => text.contains(&format!("{name} = ")),
        };
        if setting.support == settings::Support::Yes && !is_there {
            missing.push(name);
        }
    });
    assert!(missing.is_empty(), "config/larder.toml lacks, or gives another default for {missing:?}");
}

fn names(all: &[settings::Setting], visit: &mut impl FnMut(&settings::Setting)) {
    for setting in all {
        visit(setting);
        match setting.kind {
            kind::Kind::Table(inner) | kind::Kind::Tables(inner) => names(inner, visit),
            _ => {}
        }
    }
}

#[test]
fn every_default_of_the_table_is_allowed_by_it() {
    fn walk(all: &'static [settings::Setting]) {
        for setting in all {
            let texts = match setting.default {
                settings::Default::Value(text) => vec![text],
                settings::Default::ByProfile { edge, rfc } => vec![edge, rfc],
                _ => vec![],
            };
            for text in texts {
                let one: &'static [settings::Setting] = Box::leak(Box::new([*setting]));
                let text = format!("{} = {text}", setting.name);
                let mut diagnostics = Diagnostics::new("t", &text);
                check::read(&text, one, &mut diagnostics);
                assert!(!diagnostics.has_errors(), "{text}: {:?}", diagnostics.into_sorted());
            }
            if let kind::Kind::Table(inner) | kind::Kind::Tables(inner) = setting.kind {
                walk(inner);
            }
        }
    }
    walk(settings::ROOT);
}
