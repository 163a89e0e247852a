//! Small sets of small numbers, as the bits of a `u64`.

/// The least member that is `from` or more.
pub(super) fn at_or_after(bits: u64, from: u32) -> Option<u32> {
    let rest = bits & u64::MAX.checked_shl(from).unwrap_or(0);
    (rest != 0).then(|| rest.trailing_zeros())
}

/// The greatest member that is `to` or less.
pub(super) fn at_or_before(bits: u64, to: u32) -> Option<u32> {
    let rest = bits & u64::MAX.checked_shr(63 - to.min(63)).unwrap_or(0);
    rest.checked_ilog2()
}

/// The set of these.
pub(super) fn set(members: impl IntoIterator<Item = u16>) -> u64 {
    members
        .into_iter()
        .fold(0, |bits, member| bits | 1 << member)
}
