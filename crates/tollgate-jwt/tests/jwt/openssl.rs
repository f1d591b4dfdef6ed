//! Keys and tokens that OpenSSL made: `iss` is `i`, `aud` is `a`, `sub` is `u`, `exp` is 2000077200, `kid` is `rsa`.

/// The modulus of an RSA key of 2,048 bits. Its exponent is 65,537.
pub(crate) const MODULUS: &str = "71kglT01dpBH7QkWLJ9mIiIJfVtxjH0bnQdpBJ-szbSPmuZS4LEix8USPWqTCNVmaPgrr339x0PASHKdqfnAkxDLyDmOWgs0BSL5KWxteTUGboinT2F4cHbfHbloUFc2TJGF1NIA_RKdA8PiLPO9iPEL3beQT2P_P96uYx5j3BzzpkzfpjRnJ9zKENtFsBaebhpE4ToyAAFs38Un-saqLFBEDVxtx9QIt9OydT4HFt9-S9DqnU3YynfUcy3WfAaZt1tOWuutpHdUycdJCZxmGtfonZHTZ67Zsu4ige2ilTS6hUfxeTs-floGH3eF2zeFGQD2lJOHrV8EPxQnNUvhxQ";

/// Signed by it.
pub(crate) const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSIsInN1YiI6InUiLCJleHAiOjIwMDAwNzcyMDB9.zh3rN3SEjHqPnP0urF4cm3Ys2Cr2nWdno3jcVzIRUMyXp6jqsNypFQxifyqxeYuVRuvHFa2UEzpPwTG6BnlgRizYyLNOfYGZ4QfKWMydBoDDJQQALcJerQSx98U57k2XQXWHRAgtim0zbhyrhhG6wkiru_DkcFZchvMgOG2GFU-6yKGUYfBAC--4VzYjpc61118cG-KktOkVhwVxSYyEexVQUIV7hu_arkqYKdKU7iRs1t6w-vubj_6U3BtMyMlGv52YJLd-C7n0AO4K5l3nmjClks_Zit7Z8zsEFilmNulE7FHEKSUIF34-PxurakFfr2RRcQGLXXNpoj1WwTPpoA";

/// Signed by it.
pub(crate) const PS256: &str = "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSIsInN1YiI6InUiLCJleHAiOjIwMDAwNzcyMDB9.XRj2gztRye3qYdZmtJWIol3HTbtFJCulA0j9Nkm99_KprSMzZT5CwF1PFO6etCwczRFHkExYl75NUDAZX5KvgEvATinIRr0umQf-Z1NrzAv-rZ_Aa-hcJX93xPaqs4VmGq6x5JeQLjir7OQFHyX8aj9xFuB2pr9ScG7faZniO01xmQ7C4fMGP4gr7_bXsshr18bZKYvrzDS6rwDM5fVUWBUt4Bdu-Y17FSFsXWLlB_RSIqiianUiX0Gg18XTWI71_7VRPNRDieeXdlxEeK6zeD1x2_SBkN1AoNmv3IoHVZedxM3TamtCq2WxUYFGmp4_bwUcjJ8Fwy37vsomTERPQw";

/// The modulus of an RSA key of 1,024 bits.
pub(crate) const WEAK_MODULUS: &str = "5sgexbkBJdz8w2mQwjeEqWxp_o0M3NBMBGe9OveOUpQi9ir8lefqAY9GD-a_zJIBmfjXUeCgy_QFfUfg8tz_XYAf2End8TCTC86ootmSaUIAU1_tCEfGIsFspLwPaX8UdiA4Qf-LyUpPQmpnaxGLyycWys2m7oEYFeGXwjuWUEs";

/// Signed by it.
pub(crate) const WEAK_RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSIsInN1YiI6InUiLCJleHAiOjIwMDAwNzcyMDB9.PB6P1qQmlhF2Oj5Qh0JOBiHSaO8Rr97sBxjEZ_TsZS2_I9ATSIoHcD-2Y9fxzUKsfe1iOE1vYlBjGMM0pzowQgr1y70uhm8ErKiJZwe98ZdCVziDRb4I3MOw9bYFGA_pS-CmPmhp7jNlhdhdQCxowNsOpoWUoMAhSGFlcr2Thd0";

/// A point on P-384.
pub(crate) const P384_X: &str = "ovJvPYMF2y15V7VU1nOK7KoWISp4T43YpfVuwXVAEViS_6jPqg63aVEPx8xMd8Ta";

/// A point on P-384.
pub(crate) const P384_Y: &str = "OVmdALKZIY18zXIooAa9v86SDXvSv9H5F0lOve9umOocUS92pgbsr58GPbnMfaYC";

/// Signed by its key.
pub(crate) const ES384: &str = "eyJhbGciOiJFUzM4NCIsImtpZCI6InJzYSJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSIsInN1YiI6InUiLCJleHAiOjIwMDAwNzcyMDB9.0VsaAiv4cCb3Wf9aQobTVHPzDwhgztfGrTYrnPREpZ29IJBg1rKXS1j1Q1o5eEQD9LmDox0E4DahWIHe4YLxlbjIeJ9iPCrrXZTiqEq5tNcLDTkvZGRnGE-xPUhX-EVn";
