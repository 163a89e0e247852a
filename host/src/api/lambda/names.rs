//! The ways in which clients name a function: `name`, `account:function:name`,
//! or a whole ARN, each with an optional `:qualifier`.

use super::error::ApiError;

/// A function and the qualifier that the caller used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FunctionReference {
    pub(super) name: String,
    pub(super) qualifier: Option<String>,
}

impl FunctionReference {
    /// Reads the name in the path and the qualifier in the query.
    pub(super) fn parse(
        text: &str,
        query: Option<String>,
        account: &str,
        region: &str,
    ) -> Result<Self, ApiError> {
        let malformed = || ApiError::Validation {
            message: format!(
                "1 validation error detected: Value '{text}' at 'functionName' failed to satisfy constraint: give a name, a partial ARN or an ARN, each with an optional qualifier"
            ),
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (name, qualifier) = match parts.as_slice() {
            [name] => (*name, None),
            [name, qualifier] => (*name, Some(*qualifier)),
            [their_account, "function", name, rest @ ..] if rest.len() <= 1 => {
                check_account(their_account, account)?;
                (*name, rest.first().copied())
            }
            [
                "arn",
                "aws",
                "lambda",
                their_region,
                their_account,
                "function",
                name,
                rest @ ..,
            ] if rest.len() <= 1 => {
                if *their_region != region {
                    return Err(ApiError::ResourceNotFound {
                        message: format!(
                            "Functions from '{their_region}' are not reachable in this region ('{region}')"
                        ),
                    });
                }
                check_account(their_account, account)?;
                (*name, rest.first().copied())
            }
            _ => return Err(malformed()),
        };
        if name.is_empty() || qualifier == Some("") {
            return Err(malformed());
        }
        let qualifier = match (qualifier, query) {
            (Some(own), Some(query)) if own != query => {
                return Err(ApiError::InvalidParameterValue {
                    message: "The derived qualifier from the function name does not match the specified qualifier.".into(),
                });
            }
            (Some(own), _) => Some(own.to_owned()),
            (None, query) => query,
        };
        Ok(Self {
            name: name.to_owned(),
            qualifier,
        })
    }
}

fn check_account(theirs: &str, ours: &str) -> Result<(), ApiError> {
    if theirs == ours {
        return Ok(());
    }
    Err(ApiError::AccessDenied {
        message: format!(
            "the function is of the account {theirs}, and this host's account is {ours}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, query: Option<&str>) -> Result<FunctionReference, &'static str> {
        FunctionReference::parse(text, query.map(str::to_owned), "123456789012", "edge-1")
            .map_err(|error| error.code())
    }

    fn named(name: &str, qualifier: Option<&str>) -> FunctionReference {
        FunctionReference {
            name: name.into(),
            qualifier: qualifier.map(str::to_owned),
        }
    }

    #[test]
    fn every_form_of_a_name_is_read() {
        assert_eq!(parse("f", None), Ok(named("f", None)));
        assert_eq!(parse("f", Some("7")), Ok(named("f", Some("7"))));
        assert_eq!(parse("f:live", None), Ok(named("f", Some("live"))));
        assert_eq!(parse("f:live", Some("live")), Ok(named("f", Some("live"))));
        assert_eq!(parse("123456789012:function:f", None), Ok(named("f", None)));
        assert_eq!(
            parse("123456789012:function:f:7", None),
            Ok(named("f", Some("7")))
        );
        assert_eq!(
            parse(
                "arn:aws:lambda:edge-1:123456789012:function:f:$LATEST",
                None
            ),
            Ok(named("f", Some("$LATEST")))
        );
    }

    #[test]
    fn what_is_no_name_of_ours_is_refused_in_lambdas_words() {
        assert_eq!(
            parse("f:live", Some("7")),
            Err("InvalidParameterValueException")
        );
        assert_eq!(
            parse("arn:aws:lambda:us-east-1:123456789012:function:f", None),
            Err("ResourceNotFoundException")
        );
        assert_eq!(
            parse("arn:aws:lambda:edge-1:999999999999:function:f", None),
            Err("AccessDeniedException")
        );
        for malformed in [
            "",
            "f:",
            ":7",
            "a:b:c",
            "arn:aws:lambda:edge-1:123456789012:function:f:1:2",
        ] {
            assert_eq!(
                parse(malformed, None),
                Err("ValidationException"),
                "{malformed}"
            );
        }
    }
}
