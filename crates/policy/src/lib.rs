//! Runtime policy: build, evaluate, explain; initdata.
