//! Purges on a data listener: `PURGE`, `BAN` and the like, and `GET /purge/PATH`.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::json;

use super::super::super::Control;
use super::super::super::auth::has_key;
use super::super::super::problem::Problem;
use super::target::{self, PURGE_LOCATION, Place};
use super::{Order, Purger, Reach, bad, is_soft, varnish};
use crate::edge::{Addressed, Edge, is_purge_location};
use crate::purge::{Purge, Source};

/// What becomes of a purge on a data listener.
enum Right {
    /// It may be.
    Given(Purger, Reach),
    /// A wrong token once too often.
    Slowed(Problem),
}

impl Control {
    /// The answer to a purge on a data listener; `None`: there is no right to it, or a GET that is no purge here.
    pub fn purge_on_data(
        self: &Arc<Self>,
        parts: &Parts,
        to: &Addressed,
    ) -> Option<impl Future<Output = Response<Bytes>> + Send + use<>> {
        let is_location = is_purge_location((&parts.method, &parts.uri));
        let right = if is_location { self.right_of_address(to) } else { self.right(&parts.headers, to) }?;
        let headers = &parts.headers;
        let is_fastly = headers.keys().any(|name| name.as_str().starts_with("fastly-"));
        let is_json = is_fastly || accepts_json(headers);
        let (control, parts, to) = (self.clone(), parts.clone(), to.clone());
        Some(async move {
            let purged = async {
                let (purger, reach) = match right {
                    Right::Given(purger, reach) => (purger, reach),
                    Right::Slowed(problem) => return Err(problem),
                };
                let mut order = read(&control.parts.edge.current(), reach, &parts, &to)?;
                if is_fastly {
                    order.source = Source::Fastly;
                }
                control.carry_out(order, &purger).await
            };
            answer(purged.await, is_json)
        })
    }

    /// A token first, then the address.
    fn right(&self, headers: &HeaderMap, to: &Addressed) -> Option<Right> {
        let token = self.tokens.find_key(headers, self.parts.clock.now());
        let may = |purger: Purger| {
            let reach = self.reach(&purger, to)?;
            Some(Right::Given(purger, reach))
        };
        let by_token = token.clone().filter(|token| token.allows("purge"));
        let by_token = by_token.and_then(|token| may(Purger { token: Some(token), address: to.client }));
        by_token.or_else(|| self.right_of_address(to)).or_else(|| {
            // Who claims nothing is told that it may not, however often.
            if token.is_some() || !has_key(headers) {
                return None;
            }
            self.tokens.failed(headers, to.client?).err().map(Right::Slowed)
        })
    }

    fn right_of_address(&self, to: &Addressed) -> Option<Right> {
        let purger = Purger { token: None, address: to.client };
        let reach = self.reach(&purger, to)?;
        Some(Right::Given(purger, reach))
    }

    /// The site of the Host; all sites, where the Host is the node's address and no site's name.
    fn reach(&self, purger: &Purger, to: &Addressed) -> Option<Reach> {
        let own = to
            .site
            .as_ref()
            .filter(|site| !is_address(&to.host) || site.hosts.iter().any(|host| **host == *to.host));
        match own {
            Some(site) => purger.covers(site).then(|| Reach::one(site)),
            None => {
                Some(Reach::of(&self.parts.edge.current(), purger)).filter(|reach| !reach.sites.is_empty())
            }
        }
    }
}

fn is_address(host: &str) -> bool {
    let is_v6 = host.starts_with('[');
    let name = if is_v6 { host.split(']').next() } else { host.split(':').next() }.unwrap_or_default();
    name.trim_start_matches('[').parse::<IpAddr>().is_ok()
}

fn read(edge: &Edge, reach: Reach, parts: &Parts, to: &Addressed) -> Result<Order, Problem> {
    let (method, headers) = (parts.method.as_str(), &parts.headers);
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let place = Place { edge, reach: &reach, site: to.site.as_ref(), host: &to.host };
    if is_purge_location((&parts.method, &parts.uri)) {
        let wanted = target::location(place, path.strip_prefix(PURGE_LOCATION).unwrap_or(path), query)?;
        return Ok(Order { wanted, reach, soft: false, source: Source::Nginx });
    }
    let soft = is_soft(headers)?;
    if let Some((wanted, is_xkey_soft)) = varnish::by_fields(edge, &reach, method, headers)? {
        return Ok(Order { wanted, reach, soft: soft || is_xkey_soft, source: Source::Varnish });
    }
    let nothing = |what: &str| Err(bad(format!("{method} {path} names nothing: {what}; nothing was purged")));
    match (method, path) {
        ("PURGEKEYS", _) => return nothing("xkey-purge or xkey-softpurge is needed"),
        ("PURGETAGS", _) => return nothing("X-Cache-Tags is needed"),
        ("BAN", "/") => {
            return nothing("X-Cache-Tags, Cache-Tags, X-Host or X-Url is needed; PURGE / is for a page");
        }
        ("REFRESH", _) => {
            return Err(bad("REFRESH is not supported, PURGE softly instead; nothing was purged"));
        }
        _ => {}
    }
    let (wanted, source) = target::purge(place, (path, query), headers)?;
    Ok(Order { wanted, reach, soft, source })
}

fn answer(purged: Result<Arc<Purge>, Problem>, is_json: bool) -> Response<Bytes> {
    match purged {
        Ok(purge) if is_json => {
            let body = json!({ "status": "ok", "id": purge.id }).to_string();
            said("application/json", body)
        }
        Ok(_) => said("text/plain; charset=utf-8", "Purged".to_owned()),
        Err(problem) if is_json => problem.json().map(Bytes::from),
        Err(problem) => problem.text().map(Bytes::from),
    }
}

fn said(content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut ranges = lines.flat_map(|line| line.split(',')).filter_map(|range| range.split(';').next());
    ranges.any(|range| range.trim().eq_ignore_ascii_case("application/json"))
}
