//! Whole exchanges: what is stored is allowed to be, and its times make sense.

use http::{Method, StatusCode};
use larder::rules::{
    conditional,
    directives::Directives,
    policy::{self, Exchange, SitePolicy},
    request, targeted,
    time::Millis,
    update,
};

/// Two bytes of status, the request's fields, an empty line, the response's.
pub(crate) fn run(data: &[u8]) {
    let Some((status, data)) = data.split_first_chunk::<2>() else {
        return;
    };
    let status = StatusCode::from_u16(100 + u16::from_le_bytes(*status) % 500).expect("a status");
    let (asked, answer) = super::two_parts(data);
    let (asked, answer) = (super::head(asked), super::head(answer));
    let now = Millis::from_secs(1_780_000_000);
    let exchange = Exchange {
        method: &Method::GET,
        request_headers: &asked,
        status,
        response_headers: &answer,
        request_time: now,
        response_time: now,
    };
    if let Ok(freshness) = policy::decide(&exchange, &SitePolicy::default()) {
        let directives = targeted::decide(&answer, "larder").directives;
        assert!(!directives.private && (!directives.no_store || directives.must_understand));
        assert!(!answer.contains_key("set-cookie") && status.as_u16() >= 200);
        assert!(freshness.fresh_until <= freshness.swr_until && freshness.fresh_until <= freshness.sie_until);
        let _ = request::state(&Directives::parse(&asked), &freshness, now);
    }
    let _ = conditional::has_conditions(&asked);
    let mut stored = asked.clone();
    let _ = update::matches_304(&stored, &answer);
    update::merge_304(&mut stored, &answer, policy::SetCookie::Pass);
}
