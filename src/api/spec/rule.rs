//! The CEL rules that several fields share, and the form of each message: the field, and what to write.

use epochwarden_core::duration::DURATION_PATTERN;
use kube::core::Rule;
use schemars::{Schema, json_schema};

/// A rule with its message. `field` is the full path, because a message may be read without the path that the API server puts before it.
pub(super) fn rule(expression: impl Into<String>, field: &str, what_to_write: &str) -> Rule {
    Rule {
        rule: expression.into(),
        message: Some(kube::core::Message::Message(format!("{field}: {what_to_write}"))),
        ..Rule::default()
    }
}

/// The field keeps the value that it was created with.
pub(super) fn immutable(field: &str, why: &str) -> Rule {
    rule("self == oldSelf", field, &format!("cannot be changed, because {why}: create another policy"))
}

/// The field is a duration.
pub(super) fn duration(field: &str) -> Rule {
    rule(
        format!("self.matches('{DURATION_PATTERN}')"),
        field,
        "write days, hours, minutes and seconds in this order, such as 90s, 10m, 24h, 7d or 1d12h",
    )
}

/// The field, where it is a duration at all, has a length.
pub(super) fn longer_than_nothing(field: &str) -> Rule {
    rule("self.matches('[1-9]') || !self.matches('^([0-9]+[dhms])+$')", field, "write a duration longer than 0s")
}

/// The field has the shape of a schedule. Whether each of its five fields means something is said by a condition.
pub(super) fn schedule(field: &str) -> Rule {
    rule(
        r"self.matches(r'^\s*(@(?i:hourly|daily|midnight|weekly|monthly|yearly|annually)|[^\s@]\S*(\s+\S+){4})\s*$')",
        field,
        "write five fields (minute, hour, day of month, month, day of week), such as \"H/15 * * * *\", or @hourly, @daily, @midnight, \
         @weekly, @monthly, @yearly or @annually",
    )
}

/// The field has the shape of a time zone's name. Whether it is known is said by a condition.
pub(super) fn time_zone(field: &str) -> Rule {
    rule(
        "self.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",
        field,
        "write a name of the IANA time zone database, such as Etc/UTC or Europe/Berlin",
    )
}

/// The field is the name of an object in the policy's namespace.
pub(super) fn object_name(field: &str, kind: &str) -> Rule {
    rule(
        "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",
        field,
        &format!(
            "write the name of a {kind} in the policy's namespace: lower-case letters, digits, - and ., such as orders-1"
        ),
    )
}

/// A map from short texts to texts, both bounded, so that the cost of a rule over it is known.
pub(super) fn bounded_map(entries: u32, value_length: u32) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": entries,
        "additionalProperties": { "type": "string", "maxLength": value_length },
    })
}
