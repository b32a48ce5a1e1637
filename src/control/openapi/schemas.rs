//! What bodies look like. Answers may get more fields; what is asked for may not have unknown ones.

use serde_json::{Map, Value, json};

pub(super) fn schemas() -> Value {
    let mut all = Map::new();
    for part in [requests(), purges(), warmups(), dialects(), holdings(), others(), problems()] {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

fn strings(about: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "description": about })
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn page(item: &str) -> Value {
    let items = json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{item}") } });
    object(json!({ "items": items, "next": { "type": ["string", "null"] } }), &["items", "next"])
}

fn requests() -> Value {
    let mut purge = object(
        json!({
            "site": { "type": ["string", "null"], "description": "Restricts every entry; required when the token covers several" },
            "urls": strings("As clients ask for them; both schemes, every variant"),
            "prefixes": strings("host/path in whole segments"),
            "tags": strings("Compared byte by byte"),
            "hosts": strings("Everything of a host"),
            "all": { "type": "boolean", "default": false, "description": "Stands alone" },
            "soft": { "type": "boolean", "default": false, "description": "Stale instead of gone" },
            "note": { "type": ["string", "null"], "maxLength": 1024 },
            "dry_run": { "type": "boolean", "default": false },
        }),
        &[],
    );
    let fields = json!({
        "type": "object",
        "additionalProperties": {
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        },
    });
    let mut explain =
        object(json!({ "url": { "type": "string", "format": "uri" }, "headers": fields }), &["url"]);
    for request in [&mut purge, &mut explain] {
        request["additionalProperties"] = json!(false);
    }
    json!({ "PurgeRequest": purge, "ExplainRequest": explain })
}

fn warmups() -> Value {
    let mut request = object(
        json!({
            "site": { "type": ["string", "null"] },
            "urls": strings("Of the token's sites"),
            "sitemap": { "type": ["string", "null"], "format": "uri", "description": "Of a site; an index and .gz too" },
            "encodings": strings("Each is asked for: br, gzip, zstd, identity"),
            "headers": { "type": "array", "items": { "type": "object" }, "description": "Each set is asked for" },
            "rate": { "type": "number", "description": "Requests a second" },
            "concurrency": { "type": "integer", "minimum": 1 },
            "refresh": { "type": "boolean", "default": false, "description": "Revalidates what is there" },
            "hold": { "type": ["string", "null"], "description": "Exempt from eviction for so long, as in 12h: half of the disk tier at most, or without a disk an eighth of the memory for small bodies and three eighths for larger ones" },
        }),
        &[],
    );
    request["additionalProperties"] = json!(false);
    let job = object(json!({ "id": { "type": "string" }, "state": { "type": "string" } }), &["id"]);
    let url =
        object(json!({ "url": { "type": "string" }, "outcome": { "type": ["string", "null"] } }), &["url"]);
    json!({
        "WarmupRequest": request,
        "Warmup": job,
        "WarmupPage": page("Warmup"),
        "WarmupUrl": url,
        "WarmupUrlPage": page("WarmupUrl"),
    })
}

fn dialects() -> Value {
    let fastly =
        object(json!({ "status": { "type": "string" }, "id": { "type": "string" } }), &["status", "id"]);
    let request = object(
        json!({
            "files": { "type": "array", "items": { "type": ["string", "object"] } },
            "tags": strings("Cache tags"),
            "hosts": strings("Hosts"),
            "prefixes": strings("Prefixes of URLs"),
            "purge_everything": { "type": "boolean" },
        }),
        &[],
    );
    let error = object(
        json!({ "code": { "type": "integer" }, "message": { "type": "string" } }),
        &["code", "message"],
    );
    let answer = object(
        json!({
            "success": { "type": "boolean" },
            "errors": { "type": "array", "items": error },
            "messages": { "type": "array" },
            "result": { "type": ["object", "null"] },
        }),
        &["success", "errors"],
    );
    let mut keys = object(json!({ "surrogate_keys": strings("Compared byte by byte") }), &[]);
    keys["additionalProperties"] = json!(false);
    let fastly_error =
        object(json!({ "msg": { "type": "string" }, "detail": { "type": "string" } }), &["msg", "detail"]);
    json!({
        "FastlyKeys": keys,
        "FastlyError": fastly_error,
        "FastlyPurge": fastly,
        "FastlyPurges": { "type": "object", "additionalProperties": { "type": "string" } },
        "CloudflareRequest": request,
        "CloudflareAnswer": answer,
    })
}

fn purges() -> Value {
    let selector =
        object(json!({ "kind": { "type": "string" }, "value": { "type": "string" } }), &["kind", "value"]);
    let node = object(
        json!({
            "node": { "type": "string" },
            "state": { "type": "string" },
            "applied_at": { "type": "string", "format": "date-time" },
        }),
        &["node", "state"],
    );
    let purge = object(
        json!({
            "id": { "type": "string" },
            "seq": { "type": "integer" },
            "state": { "const": "applied" },
            "soft": { "type": "boolean" },
            "entries": { "type": "integer" },
            "applied_in_us": { "type": ["integer", "null"] },
            "nodes": { "type": "array", "items": node },
            "at": { "type": "string", "format": "date-time" },
            "site": { "type": ["string", "null"] },
            "who": { "type": "string" },
            "from": { "type": ["string", "null"] },
            "source": { "type": "string" },
            "note": { "type": ["string", "null"] },
            "selectors": { "type": "array", "items": selector },
        }),
        &["id", "seq", "state", "soft", "entries"],
    );
    let matches = object(
        json!({ "objects": { "type": "integer" }, "bytes": { "type": "integer" } }),
        &["objects", "bytes"],
    );
    let dry_run = object(
        json!({
            "matches": matches,
            "sample": strings("Some of the URLs"),
            "complete": { "type": "boolean", "description": "false: it took too long, there may be more" },
        }),
        &["matches", "sample", "complete"],
    );
    json!({ "Purge": purge, "PurgePage": page("Purge"), "DryRun": dry_run })
}

fn holdings() -> Value {
    let text = || json!({ "type": ["string", "null"] });
    let held = object(
        json!({
            "key": { "type": "string" },
            "tier": { "enum": ["memory", "disk"] },
            "segments": { "type": "array", "items": { "type": "integer" } },
            "status": { "type": "integer" },
            "state": { "enum": ["fresh", "stale-while-revalidate", "must-revalidate"] },
            "age": { "type": "integer", "description": "Seconds" },
            "ttl": { "type": "integer", "description": "Seconds; negative: stale" },
            "freshness": { "type": "string", "description": "What decided the lifetime" },
            "size": { "type": "integer", "description": "Bytes of the body" },
            "content_type": text(),
            "content_encoding": text(),
            "encodings": {
                "type": "array",
                "description": "What is kept of it in other codings: coding and bytes",
                "items": { "type": "array", "items": { "type": ["string", "integer"] } },
            },
            "etag": text(),
            "last_modified": text(),
            "vary": strings("Fields that select it"),
            "tags": strings("Names under which it may be purged"),
            "slices": {
                "type": ["object", "null"],
                "description": "Where it is kept in slices: how many are stored, of how many, and bytes of the whole",
                "properties": {
                    "stored": { "type": "integer" },
                    "of": { "type": "integer" },
                    "length": { "type": "integer" },
                },
            },
        }),
        &["key", "tier", "status", "state", "size"],
    );
    let tag =
        object(json!({ "tag": { "type": "string" }, "objects": { "type": "integer" } }), &["tag", "objects"]);
    json!({
        "Object": held,
        "ObjectPage": page("Object"),
        "Tag": tag,
        "TagPage": page("Tag"),
    })
}

fn others() -> Value {
    let text = || json!({ "type": ["string", "null"] });
    let record = object(
        json!({
            "seq": { "type": "integer" },
            "at": { "type": "string", "format": "date-time" },
            "action": { "type": "string" },
            "who": text(),
            "from": text(),
            "source": { "type": "string" },
            "site": text(),
            "what": strings("What it names"),
            "outcome": { "enum": ["applied", "not-durable", "accepted", "refused"] },
            "detail": text(),
            "id": text(),
        }),
        &["seq", "at", "action", "what", "outcome"],
    );
    let lifetime = object(
        json!({
            "source": { "type": "string" },
            "field": text(),
            "lifetime": { "type": "integer", "description": "Seconds" },
            "ttl": { "type": "integer", "description": "Seconds" },
            "stale": {
                "type": "array",
                "items": { "type": "integer" },
                "description": "Seconds of stale-while-revalidate and stale-if-error",
            },
        }),
        &["source", "lifetime", "ttl"],
    );
    let or_null = |what: Value| json!({ "oneOf": [what, { "type": "null" }] });
    let explanation = object(
        json!({
            "url": { "type": "string" },
            "site": { "type": "string" },
            "rule": { "type": "string" },
            "key": text(),
            "result": { "enum": ["hit", "stale", "revalidate", "miss", "pass", "refused"] },
            "detail": { "type": "string" },
            "freshness": or_null(lifetime),
            "vary": strings("Fields of a request that select the response"),
            "variants": { "type": "integer" },
            "stored": or_null(json!({ "$ref": "#/components/schemas/Object" })),
            "is_stored": { "type": ["boolean", "null"] },
            "reason": text(),
            "origin_status": { "type": ["integer", "null"] },
            "advice": strings("What could be changed"),
        }),
        &["url", "site", "result", "detail"],
    );
    json!({
        "AuditRecord": record,
        "AuditPage": page("AuditRecord"),
        "Explanation": explanation,
        "Status": { "type": "object" },
        "Readiness": { "type": "object" },
        "OpenApi": { "type": "object" },
        "NodeState": object(
            json!({ "state": { "type": "string" }, "warnings": strings("What has no effect") }),
            &["state"],
        ),
        "OriginList": object(json!({ "items": { "type": "array", "items": { "type": "object" } } }), &["items"]),
    })
}

fn problems() -> Value {
    let fault = object(
        json!({ "pointer": { "type": "string" }, "detail": { "type": "string" } }),
        &["pointer", "detail"],
    );
    let problem = object(
        json!({
            "type": { "type": "string", "format": "uri" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "errors": { "type": "array", "items": fault },
        }),
        &["type", "title", "status", "detail"],
    );
    json!({ "Problem": problem })
}
