//! Calls of warming, of the node's life, and of other caches' APIs.

use super::calls::{AFTER, Call, GET, JSON, LIMIT, Scope};

const WARM: Scope = Scope::Needs("warm");
const PURGE: Scope = Scope::Needs("purge");
const SOFT_PURGE: (&str, &str) = ("Fastly-Soft-Purge", "1: stale instead of gone");
const FASTLY: Call = Call {
    method: "post",
    scope: PURGE,
    fields: &[SOFT_PURGE],
    answers: &[(200, "Durable and in effect", JSON, "FastlyPurge")],
    foreign_error: Some("FastlyError"),
    ..GET
};
const CLOUDFLARE: Call = Call {
    path: "/client/v4/zones/{zone}/purge_cache",
    scope: PURGE,
    body: Some(("CloudflareRequest", true)),
    answers: &[(200, "Durable and in effect", JSON, "CloudflareAnswer")],
    foreign_error: Some("CloudflareAnswer"),
    ..GET
};

pub(super) const MORE_CALLS: &[Call] = &[
    Call {
        method: "post",
        path: "/v1/warmups",
        id: "createWarmup",
        summary: "Warm a list of URLs or a sitemap",
        scope: WARM,
        body: Some(("WarmupRequest", true)),
        answers: &[(202, "Queued; Location names it", JSON, "Warmup")],
        ..GET
    },
    Call {
        path: "/v1/warmups",
        id: "listWarmups",
        summary: "Warm jobs, the newest first",
        scope: Scope::Needs("read or warm"),
        query: &[LIMIT, AFTER],
        answers: &[(200, "A page", JSON, "WarmupPage")],
        ..GET
    },
    Call {
        path: "/v1/warmups/{id}",
        id: "showWarmup",
        summary: "How far a warm job is, and what came of it",
        scope: Scope::Needs("read or warm"),
        answers: &[(200, "The job", JSON, "Warmup")],
        ..GET
    },
    Call {
        method: "delete",
        path: "/v1/warmups/{id}",
        id: "cancelWarmup",
        summary: "Cancel a warm job: what is stored by then stays, and is held no longer; of one that is done, release what it holds (409: nothing)",
        scope: WARM,
        answers: &[(200, "The job", JSON, "Warmup")],
        ..GET
    },
    Call {
        path: "/v1/warmups/{id}/urls",
        id: "listWarmupUrls",
        summary: "What came of each URL, and why",
        scope: Scope::Needs("read or warm"),
        query: &[("outcome", "string", "stored, fresh, uncacheable, failed or waiting"), LIMIT, AFTER],
        answers: &[(200, "A page", JSON, "WarmupUrlPage")],
        ..GET
    },
    Call {
        method: "post",
        path: "/v1/reload",
        id: "reload",
        summary: "Take the configuration as it is now, whole or not at all (422, with every fault)",
        scope: Scope::Needs("admin"),
        answers: &[(200, "It is in effect", JSON, "NodeState")],
        ..GET
    },
    Call {
        method: "post",
        path: "/v1/drain",
        id: "drain",
        summary: "Finish what is begun, and end",
        scope: Scope::Needs("admin"),
        answers: &[(202, "It has begun", JSON, "NodeState")],
        ..GET
    },
    Call { path: "/purge/{*url}", id: "fastlyPurgeUrl", summary: "Fastly: purge host/path", ..FASTLY },
    Call {
        path: "/service/{id}/purge/{*key}",
        id: "fastlyPurgeKey",
        summary: "Fastly: purge a surrogate key",
        ..FASTLY
    },
    Call {
        path: "/service/{id}/purge",
        id: "fastlyPurgeKeys",
        summary: "Fastly: purge surrogate keys, from the body, the field Surrogate-Key, or both",
        fields: &[("Surrogate-Key", "Keys, with spaces between them"), SOFT_PURGE],
        body: Some(("FastlyKeys", false)),
        answers: &[(200, "The purge's id, by key", JSON, "FastlyPurges")],
        ..FASTLY
    },
    Call {
        path: "/service/{id}/purge_all",
        id: "fastlyPurgeAll",
        summary: "Fastly: purge everything of a service",
        scope: Scope::Needs("purge:all"),
        ..FASTLY
    },
    Call { method: "post", id: "cloudflarePurge", summary: "Cloudflare: purge of a zone", ..CLOUDFLARE },
    Call { method: "delete", id: "cloudflarePurgeByDelete", summary: "Cloudflare: the same", ..CLOUDFLARE },
];
