//! Kinds of values: what is allowed, and how it is said.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::settings::Setting;

/// What a setting's value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    Int {
        min: u64,
        max: u64,
    },
    Size {
        min: u64,
        max: u64,
        percent: bool,
    },
    Duration {
        min_ms: u64,
        max_ms: u64,
        may_be_empty: bool,
    },
    Text(Format),
    OneOf(&'static [&'static str]),
    List(&'static Kind),
    Table(&'static [Setting]),
    /// A table whose missing settings are inherited instead of having defaults.
    Overrides(&'static [Setting]),
    Tables(&'static [Setting]),
    Map(Format, &'static Kind),
    Time,
}

/// Fields on which the end of a message, or its way, depends.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a string may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Any,
    Token,
    Name,
    Path,
    SocketAddr,
    SocketAddrOrEmpty,
    Cidr,
    HostPattern,
    Method,
    HeaderName,
    ChangeableField,
    HeaderValue,
    PathPattern,
    Status,
    TokenHash,
    Url,
    LogOutput,
    Rate,
    MediaType,
    Share,
    Statuses,
    TargetOrEmpty,
}

impl Format {
    pub(super) fn allows(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Token => !text.is_empty() && text.len() <= 64 && text.bytes().all(is_token_byte),
            Self::Name => {
                let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                (1..=64).contains(&text.len()) && text.bytes().all(is_name)
            }
            Self::Path | Self::LogOutput => !text.is_empty() && !text.contains('\0'),
            Self::SocketAddr => text.parse::<SocketAddr>().is_ok(),
            Self::SocketAddrOrEmpty => text.is_empty() || text.parse::<SocketAddr>().is_ok(),
            Self::Cidr => parse_cidr(text).is_some(),
            Self::HostPattern => is_host_pattern(text),
            Self::Method => text == "*" || http::Method::from_bytes(text.as_bytes()).is_ok(),
            Self::HeaderName => http::HeaderName::try_from(text).is_ok(),
            Self::ChangeableField => {
                let is_framing = FRAMING.iter().any(|name| text.eq_ignore_ascii_case(name));
                http::HeaderName::try_from(text).is_ok() && !is_framing
            }
            Self::HeaderValue => http::HeaderValue::try_from(text).is_ok(),
            Self::PathPattern => text.starts_with(['/', '*']),
            Self::Status => text.parse::<u16>().is_ok_and(|status| (200..600).contains(&status)),
            Self::TokenHash => {
                let hex = text.strip_prefix("blake3:");
                hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
            }
            Self::Url => parse_server_url(text).is_some(),
            Self::Rate => text.is_empty() || parse_rate(text).is_some(),
            Self::MediaType => is_media_type(text),
            Self::Share => parse_share(text).is_some(),
            Self::Statuses => parse_statuses(text).is_some(),
            Self::TargetOrEmpty => {
                text.is_empty() || text.starts_with('/') && text.parse::<http::Uri>().is_ok()
            }
        }
    }

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Any => "a string",
            Self::Token => "letters, digits and -._~ (at most 64)",
            Self::Name => "a name of letters, digits, - _ . (1 to 64)",
            Self::Path => "a path",
            Self::SocketAddr => r#"an address with a port, such as "0.0.0.0:80" or "[::]:443""#,
            Self::SocketAddrOrEmpty => r#"an address with a port, such as "0.0.0.0:9180", or """#,
            Self::Cidr => r#"an address or a network, such as "10.0.0.0/8" or "2001:db8::/32""#,
            Self::HostPattern => r#"a lower-case host name, "*.name" or "*""#,
            Self::Method => r#"a method such as "GET", or "*""#,
            Self::HeaderName => "a field name",
            Self::ChangeableField => "a field name other than Host (see origin.host) and those of framing",
            Self::HeaderValue => "a field value without control characters",
            Self::PathPattern => r#"a pattern that begins with / or *, such as "/assets/*""#,
            Self::Status => "a status from 200 to 599",
            Self::TokenHash => r#""blake3:" and 64 hexadecimal digits"#,
            Self::Url => r#"a URL of scheme, host and port only, such as "https://10.0.0.1:8443""#,
            Self::LogOutput => r#""off", "stdout", "stderr" or the path of a file"#,
            Self::MediaType => {
                r#"a media type in lower case without parameters, such as "text/css" or "text/*""#
            }
            Self::Rate => r#"a number a second or a minute, such as "50/s" or "600/m", up to 1000000, or """#,
            Self::Statuses => r#"a status such as "204" or a range such as "200-399", from 100 to 599"#,
            Self::TargetOrEmpty => r#"a path such as "/health", with a query or without, or """#,
            Self::Share => r#"a share from 0% to 100% such as "10%" or "0.01%""#,
        }
    }
}

impl Kind {
    /// What is allowed, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Int { min, max } => format!("a whole number from {min} to {max}"),
            Self::Size { min, max, percent } => {
                let share = if *percent { r#", or a share such as "25%""# } else { "" };
                let (min, max) = (show_size(*min), show_size(*max));
                format!(r#"a size such as "512KiB" or "20GiB", from {min} to {max}{share}"#)
            }
            Self::Duration { min_ms, max_ms, may_be_empty } => {
                let empty = if *may_be_empty { r#", or """# } else { "" };
                let (min, max) = (show_duration(*min_ms), show_duration(*max_ms));
                format!(r#"a duration such as "250ms", "30s" or "1d", from {min} to {max}{empty}"#)
            }
            Self::Text(format) => format.describe().into(),
            Self::OneOf(words) => {
                words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ")
            }
            Self::List(item) => format!("a list, each {}", item.describe()),
            Self::Table(_) | Self::Overrides(_) => "a table".into(),
            Self::Tables(_) => "tables".into(),
            Self::Map(key, value) => {
                format!("a table of {} to {}", key.describe(), value.describe())
            }
            Self::Time => "a date and time such as 2027-01-01T00:00:00Z".into(),
        }
    }
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

fn is_media_type(text: &str) -> bool {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$&-^_.+".contains(&b);
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_name);
    let parts = text.split_once('/');
    parts.is_some_and(|(kind, name)| is_part(kind) && (name == "*" || is_part(name)))
}

fn is_host_pattern(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_v6 = name.starts_with('[')
        && name.ends_with(']')
        && name[1..name.len() - 1].parse::<std::net::Ipv6Addr>().is_ok();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    is_v6 || (name.len() <= 253 && name.split('.').all(is_label))
}

/// A network, or a single address as one.
pub(super) fn parse_cidr(text: &str) -> Option<ipnet::IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(Into::into))
}

/// `http[s]://host[:port]` and nothing more.
pub fn parse_server_url(text: &str) -> Option<(bool, String, u16)> {
    let uri: http::Uri = text.parse().ok()?;
    let tls = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    if authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() {
        return None;
    }
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let has_port = authority.as_str().rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let port = authority.port_u16();
    if has_port && port.is_none_or(|port| port == 0) {
        return None;
    }
    (!host.is_empty()).then(|| (tls, host, port.unwrap_or(if tls { 443 } else { 80 })))
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// `512KiB`, `20GiB`, `1000` (bytes).
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let unit = SIZE_UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let (number, bytes) = unit.unwrap_or((text, &1));
    parse_number(number)?.checked_mul(*bytes)
}

/// `25%`, from 1 to 100.
pub(super) fn parse_percent(text: &str) -> Option<u64> {
    parse_number(text.strip_suffix('%')?).filter(|percent| (1..=100).contains(percent))
}

const TIME_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// `250ms`, `30s`, `5m`, `12h`, `1d`, `2w`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, ms) = TIME_UNITS.iter().find_map(|(unit, ms)| {
        let number = text.strip_suffix(unit)?;
        number.ends_with(|c: char| c.is_ascii_digit()).then_some((number, ms))
    })?;
    Some(Duration::from_millis(parse_number(number)?.checked_mul(*ms)?))
}

const MAX_RATE: u64 = 1_000_000;

/// `50/s`, `600/m`: how many, and in which time.
pub(super) fn parse_rate(text: &str) -> Option<(u32, Duration)> {
    let (count, unit) = text.split_once('/')?;
    let secs = match unit {
        "s" => 1,
        "m" => 60,
        _ => return None,
    };
    let count = parse_number(count).filter(|count| (1..=MAX_RATE).contains(count))?;
    Some((u32::try_from(count).ok()?, Duration::from_secs(secs)))
}

/// `204`, `200-399`.
pub(super) fn parse_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text| u16::try_from(parse_number(text)?).ok().filter(|status| (100..600).contains(status));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

/// `10%`, `0.01%`: in millionths, with up to four decimals.
pub(super) fn parse_share(text: &str) -> Option<u32> {
    let (whole, decimals) = text.strip_suffix('%')?.split_once('.').unwrap_or((text.strip_suffix('%')?, "0"));
    let is_decimals = (1..=4).contains(&decimals.len()) && decimals.bytes().all(|b| b.is_ascii_digit());
    let decimals = is_decimals.then(|| format!("{decimals:0<4}").parse::<u64>().ok())??;
    let millionths = parse_number(whole)?.checked_mul(10_000)?.checked_add(decimals)?;
    u32::try_from(millionths).ok().filter(|millionths| *millionths <= 1_000_000)
}

fn parse_number(text: &str) -> Option<u64> {
    let digits = text.trim_end();
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The largest unit that shows it exactly.
pub(super) fn show_size(bytes: u64) -> String {
    let unit = SIZE_UNITS[..4].iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn show_duration(ms: u64) -> String {
    let units = TIME_UNITS[..5].iter().rev();
    let unit = units.clone().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(name, unit)| format!("{}{name}", ms / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_size("512KiB"), Some(524_288));
        assert_eq!(parse_size("20GiB"), Some(20 << 30));
        assert_eq!(parse_size("1MB"), Some(1_000_000));
        assert_eq!(parse_size("0"), Some(0));
        for bad in ["", "KiB", "-1", "1.5GiB", "1 parsec", "99999999999TiB", "1kib"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86_400)));
        for bad in ["", "s", "30", "-1s", "1.5s", "1y"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_rate("50/s"), Some((50, Duration::from_secs(1))));
        assert_eq!(parse_rate("600/m"), Some((600, Duration::from_secs(60))));
        for bad in ["", "50", "/s", "0/s", "-1/s", "1.5/s", "50/h", "50/", "1000001/s", "50/s "] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
        for (text, millionths) in
            [("100%", 1_000_000), ("0%", 0), ("10%", 100_000), ("0.01%", 100), ("2.5%", 25_000)]
        {
            assert_eq!(parse_share(text), Some(millionths), "{text}");
        }
        for bad in
            ["", "%", "10", "101%", "100.0001%", "-1%", "1.%", ".5%", "0.00001%", "1e1%", "NaN%", "1.-1%"]
        {
            assert_eq!(parse_share(bad), None, "{bad}");
        }
        assert_eq!((parse_statuses("200-399"), parse_statuses("204")), (Some(200..=399), Some(204..=204)));
        for bad in ["", "-", "200-", "-200", "399-200", "99", "600", "200-600", "2xx", "200 - 299"] {
            assert_eq!(parse_statuses(bad), None, "{bad}");
        }
        assert_eq!(parse_percent("25%"), Some(25));
        assert_eq!(parse_percent("0%"), None);
        assert_eq!(parse_percent("101%"), None);
        assert_eq!(show_size(1536 * 1024), "1536KiB");
        assert_eq!(show_duration(90_000), "90s");
    }

    #[test]
    fn urls_of_servers() {
        assert_eq!(parse_server_url("https://10.0.0.1"), Some((true, "10.0.0.1".into(), 443)));
        assert_eq!(parse_server_url("http://[::1]:81/"), Some((false, "::1".into(), 81)));
        for bad in ["10.0.0.1", "ftp://a", "http://a/path", "http://u@a", "http://a:0", "http://a:99999", ""]
        {
            assert_eq!(parse_server_url(bad), None, "{bad}");
        }
    }
}
