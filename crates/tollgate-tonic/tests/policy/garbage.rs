//! Descriptor sets that are none: an error, no panic.

use std::sync::LazyLock;

use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use tollgate_tonic::policy::RpcPolicies;

use crate::{compile_as, market};

fn read(encoded: &[u8]) -> Option<String> {
    match RpcPolicies::from_descriptor_set(encoded) {
        Ok(policies) => policies.build().err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn text_is_not_a_descriptor_set() {
    let error = read(b"syntax = \"proto3\";").unwrap();
    assert!(
        error.starts_with("RpcPolicies: the descriptor set cannot be read, give it what protoc "),
        "{error}"
    );
}

#[test]
fn a_set_without_its_imports_is_an_error_that_names_them() {
    let encoded = market("option (tollgate.policy) = {};");
    let mut set = protox::prost_reflect::prost_types::FileDescriptorSet::decode(encoded.as_slice()).unwrap();
    set.file.retain(|file| file.name() == "market.v1.proto");
    let error = read(&set.encode_to_vec()).unwrap();
    assert!(error.contains("--include_imports") && error.contains("tollgate/policy.proto"), "{error}");
}

#[test]
fn a_file_in_another_syntax_is_an_error_that_names_it() {
    let encoded = market("option (tollgate.policy) = {};");
    for syntax in ["editions", "", "proto1"] {
        let mut set =
            protox::prost_reflect::prost_types::FileDescriptorSet::decode(encoded.as_slice()).unwrap();
        set.file.last_mut().unwrap().syntax = Some(syntax.to_owned());
        assert_eq!(
            read(&set.encode_to_vec()).unwrap(),
            format!(
                "RpcPolicies: the file market.v1.proto of the descriptor set has the syntax {syntax:?}, which cannot be read: write it in \
                 proto3"
            )
        );
    }
}

/// A library that does not know the options drops them. That must not open anything.
#[test]
fn a_set_that_has_lost_its_options_is_an_error() {
    let encoded = market("option (tollgate.policy) = { scopes: 'a' };");
    let set = protox::prost_reflect::prost_types::FileDescriptorSet::decode(encoded.as_slice()).unwrap();
    assert!(read(&set.encode_to_vec()).unwrap().ends_with("prost-types drops options when it decodes a set"));
}

/// The policy is there, but not what it means.
#[test]
fn a_policy_without_its_definition_is_an_error() {
    // An option of another file, whose number is changed to that of policies.
    let plain = compile_as(
        "market.v1",
        "import \"google/protobuf/descriptor.proto\"; extend google.protobuf.MethodOptions { Empty other = 86555; }",
        "service Market { rpc Get(Empty) returns (Empty) { option (other) = {}; } }",
    );
    let empty_option = |number| {
        let mut encoded = vec![];
        prost_reflect::prost::encoding::bytes::encode(number, &Vec::new(), &mut encoded);
        encoded
    };
    let (other, policy) = (empty_option(86555), empty_option(86554));
    let at = plain.windows(other.len()).rposition(|window| window == other).unwrap();
    let mut changed = plain.clone();
    changed[at..at + policy.len()].copy_from_slice(&policy);
    assert_eq!(
        read(&changed).unwrap(),
        "RpcPolicies: the policy of market.v1.Market/Get cannot be read, because the descriptor set lacks tollgate/policy.proto: encode the \
         set with its imports"
    );
}

/// A set with one policy.
static VALID: LazyLock<Vec<u8>> =
    LazyLock::new(|| market("option (tollgate.policy) = { scopes: ['a', 'b'] cost: 3 };"));

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_panic(encoded in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&encoded);
    }

    /// A valid set in which some bytes are changed, or whose end is missing.
    #[test]
    fn no_changed_set_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut encoded = VALID.clone();
        for (at, byte) in changes {
            let at = at.index(encoded.len());
            encoded[at] = byte;
        }
        if is_cut {
            encoded.truncate(end.index(encoded.len()));
        }
        let _ = read(&encoded);
    }
}
