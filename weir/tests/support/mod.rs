//! A signed bundle for tests of the command line.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use weir_policy_publisher::Registry;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{
    Action, Bundle, Exploration, Feature, FeatureSpec, FlagField, Layer, Lineage, Manifest, Mlp, Objective,
    POLICY_FILE, PolicySpec, Trust, WEIGHTS_FILE,
};
use weir_store::Store;

/// A folder with a trusted key, and a signed bundle of the smallest policy there is: two models, one flag.
#[allow(dead_code)]
pub fn signed_bundle(folder: &Path) -> (SigningKey, PathBuf) {
    signed(folder, &bundle())
}

/// The same of any bundle.
#[allow(dead_code)]
pub fn signed(folder: &Path, bundle: &Bundle) -> (SigningKey, PathBuf) {
    let key = SigningKey::generate();
    let trusted = folder.join("weir-keys/trusted");
    std::fs::create_dir_all(&trusted).unwrap();
    std::fs::write(trusted.join("signer.pub"), format!("{}\n", key.public())).unwrap();
    let place = folder.join("bundle");
    bundle.write_dir(&place, Some(&key.sign(&bundle.id))).unwrap();
    (key, place)
}

/// The policy itself, to which both models look alike.
pub fn bundle() -> Bundle {
    bundle_with([0.0; 4])
}

/// The same with these biases: logits of the quality of both models, then logarithms of their costs.
pub fn bundle_with(biases: [f32; 4]) -> Bundle {
    let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    let spec = PolicySpec::of_guesses(
        FeatureSpec { features: vec![Feature::Flag { field: FlagField::FactCheck }] },
        vec![action("small"), action("large")],
        Exploration { gamma: 10.0, floor: 0.1 },
        Objective { quality: 1.0, usd: 1.0 },
    );
    let inputs = spec.features.width();
    let network = Mlp::new(vec![Layer::new(inputs, vec![0.1; inputs * 4], biases.to_vec()).unwrap()]).unwrap();
    let files = [(POLICY_FILE, spec.to_json().unwrap()), (WEIGHTS_FILE, network.to_safetensors().unwrap())];
    let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    let manifest = Manifest::routing_policy("smallest", 0, Lineage::default(), serde_json::json!({}));
    Bundle::build(manifest, files).unwrap()
}

/// A process of the binary that listens, stopped when the test ends, however it ends.
pub struct Running {
    process: Child,
    url: String,
}

#[allow(dead_code)] // each test file uses its part
impl Running {
    /// Starts it and waits until it says where it listens: the last word of its first line.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_weir"))
            .current_dir(folder)
            .args(arguments)
            .env("WEIR_LOG", "off")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = process.stderr.take().expect("standard error is piped");
        let line = BufReader::new(stderr).lines().next().expect("it says where it listens").expect("readable");
        let url = line.rsplit(' ').next().expect("the address is the last word").to_owned();
        Self { process, url }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Status and JSON of an answer; null where it is none.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        self.request_at(method, &format!("{}{path}", self.url), headers, body)
    }

    /// The same at any address.
    pub fn request_at(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.run(request.body(body.to_owned()).expect("a request")).expect("an answer");
        let status = response.status().as_u16();
        (status, response.body_mut().read_json().unwrap_or(Value::Null))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the process was not stopped: {error}");
        }
    }
}

/// Runs a command to its end.
#[allow(dead_code)]
pub fn weir(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(folder)
        .args(arguments)
        .env("WEIR_LOG", "off")
        .output()
        .expect("the binary starts")
}

/// Standard output of a command that must succeed.
#[allow(dead_code)]
pub fn told(folder: &Path, arguments: &[&str]) -> String {
    let output = weir(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "weir {}: {said}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Standard error of a command that must fail.
#[allow(dead_code)]
pub fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = weir(folder, arguments);
    assert!(!output.status.success(), "weir {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// Proposes a bundle, signed with a key, to the registry of the folder `weir-data`, as `weir learn policy` does.
#[allow(dead_code)]
pub fn propose(folder: &Path, bundle: &Bundle, key: &SigningKey) {
    let data = folder.join("weir-data");
    std::fs::create_dir_all(&data).unwrap();
    let trusting = Trust::Signed([key.public().clone()].into_iter().collect());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(data.to_str().unwrap()).await.unwrap();
        let registry = Registry::open(&store, trusting).await.unwrap();
        registry.propose(bundle, Some(&key.sign(&bundle.id)), "test").await.unwrap();
    });
}

/// The policy of [`bundle`] under another name, with a report that says it is better.
#[allow(dead_code)]
pub fn better(name: &str) -> Bundle {
    let mut files = bundle().files;
    files.insert("report.json".to_owned(), br#"{"verdict": "better"}"#.to_vec());
    Bundle::build(Manifest::routing_policy(name, 0, Lineage::default(), serde_json::json!({})), files).unwrap()
}
