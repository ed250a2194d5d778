//! Ids of managed rules: rules that the hub derives from the thresholds of agentless hosts. They
//! follow the server configuration and are not edited as rules.

use uuid::Uuid;

/// First id of the managed rules. The lower 48 bits contain the kind and the threshold.
const FIRST_MANAGED_RULE: Uuid = Uuid::from_u128(0x0197_7468_7265_7000_8000_0000_0000_0000);

/// Returns the id of the rule for a kind of threshold and its value in hundredths of a percent.
pub fn managed_rule_id(kind: u16, hundredths: u32) -> Uuid {
    Uuid::from_u128(FIRST_MANAGED_RULE.as_u128() | (u128::from(kind) << 32) | u128::from(hundredths))
}

/// Returns whether a rule is derived from thresholds.
pub fn is_managed_rule(rule: Uuid) -> bool {
    rule.as_u128() >> 48 == FIRST_MANAGED_RULE.as_u128() >> 48
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin_rules::builtin_rules;

    #[test]
    fn managed_rules_have_ids_of_their_range() {
        assert!(
            is_managed_rule(managed_rule_id(0, 0)) && is_managed_rule(managed_rule_id(u16::MAX, u32::MAX))
        );
        assert_ne!(managed_rule_id(1, 9_000), managed_rule_id(0, 9_000));
        assert_ne!(managed_rule_id(1, 9_000), managed_rule_id(1, 9_500));
        assert!(builtin_rules().iter().all(|rule| !is_managed_rule(rule.id)));
        assert!(!is_managed_rule(Uuid::now_v7()));
    }
}
