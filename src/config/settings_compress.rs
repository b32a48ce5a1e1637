//! `site.compress`.

use super::kind::{Format, Kind};
use super::settings::{Setting, setting, size, text};

/// Its settings.
pub(super) const COMPRESS: &[Setting] = &[
    setting(
        "encodings",
        Kind::List(&Kind::OneOf(&["br", "zstd", "gzip"])),
        r#"["br", "zstd", "gzip"]"#,
        "Codings made, the first first; none: bodies are served as they come",
    ),
    setting(
        "types",
        Kind::List(&text(Format::MediaType)),
        concat!(
            r#"["text/html", "text/css", "text/plain", "text/xml", "text/javascript", "application/javascript", "#,
            r#""application/json", "application/manifest+json", "application/xml", "application/wasm", "#,
            r#""image/svg+xml", "font/ttf", "font/otf", "application/vnd.ms-fontobject"]"#
        ),
        "Media types that are compressed",
    ),
    setting("min_size", size(0, 1 << 40), r#""512B""#, "Smaller bodies are left alone"),
    setting(
        "max_size",
        size(0, 1 << 40),
        r#""64MiB""#,
        "Larger bodies are left alone; nothing unfolds to more",
    ),
    setting(
        "dictionaries",
        Kind::Bool,
        "false",
        "RFC 9842: bodies are also encoded against older ones that clients have",
    ),
];
