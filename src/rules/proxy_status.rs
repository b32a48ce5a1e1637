//! Proxy-Status (RFC 9209), on the errors that the node itself makes.

use http::HeaderValue;

use super::structured::{is_token, write_string, write_token_or_string};

/// `error` is a type of RFC 9209 §2.3; what is no token becomes `proxy_internal_error`. Details must not name an origin.
#[must_use]
pub fn proxy_status(node: &str, error: &str, details: Option<&str>) -> HeaderValue {
    let mut out = Vec::with_capacity(64);
    write_token_or_string(node, &mut out);
    out.extend_from_slice(b"; error=");
    out.extend_from_slice(if is_token(error) { error } else { "proxy_internal_error" }.as_bytes());
    if let Some(details) = details {
        out.extend_from_slice(b"; details=");
        write_string(details, &mut out);
    }
    HeaderValue::from_bytes(&out).unwrap_or(HeaderValue::from_static("larder; error=proxy_internal_error"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{List, Parser};

    use super::*;

    #[test]
    fn names_the_error() {
        assert_eq!(proxy_status("larder", "connection_timeout", None), "larder; error=connection_timeout");
        assert_eq!(
            proxy_status("larder", "http_request_error", Some("no \"Host\"")),
            r#"larder; error=http_request_error; details="no \"Host\"""#
        );
    }

    proptest! {
        #[test]
        fn sfv_reads_it_back(node: String, error: String, details: String) {
            let value = proxy_status(&node, &error, Some(&details));
            let list: List = Parser::new(value.as_bytes()).parse().unwrap();
            prop_assert_eq!(list.len(), 1);
        }
    }
}
