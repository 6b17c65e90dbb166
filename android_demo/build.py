"""Builds, tests and checks the Android app without Google's repositories; `make android` runs it.

    python android_demo/build.py [--abi arm64-v8a]... [--test CLASS]

Maven fetches Kotlin, JUnit, the framework's classes and TensorFlow Lite from Maven Central (pom.xml). aapt2, zipalign,
apksigner and the framework's resources come from Debian. The AARs and R8 have their SHA-256 here. All outputs are in
`android_demo/build`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import desktop_library
import google_tools

APP = Path(__file__).resolve().parent
ROOT = APP.parent
BUILD = APP / "build"
ASSETS = APP / "app/src/main/assets"
APK = BUILD / "edge_cv-debug.apk"
PACKAGE = "dev.edgecv.demo"
VERSION = "0.1.0"
MIN_SDK, TARGET_SDK = 24, 36
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")

# tool: its Debian package
TOOLS = {
    "java": "default-jdk-headless",
    "keytool": "default-jdk-headless",
    "mvn": "maven",
    "aapt": "aapt",
    "aapt2": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "dexdump": "dexdump",
    "gcc": "gcc libc6-dev",
}

AARS = {  # versions: pom.xml
    "tensorflow-lite": "34b065817e294e7dd3569504e8b9454938ceae453b6a459da54d5f6e45d3c94e",
    "tensorflow-lite-api": "885b95bc9e47a4aa5cf8e71523aed9b05e397cfef1ea09773f13fea8b649fcee",
    "tensorflow-lite-gpu": "4440e44d295e0e13964d4fe9d9e8c3d2c3f870b92fcb7b945e45036acdfcd459",
    "tensorflow-lite-gpu-api": "3e7cece2c5eaaf05f93d0399e7d86eee83bd818b037965cbe52291223acae286",
}
R8_SHA256 = "fbe6f7d59d46d6296919f6cc4793536439921d357c9a6bbf45ea4acc3c8736a7"  # version: pom.xml

MAX_BYTES_WITHOUT_MODELS = 6_500_000  # keeps the app with int8 EfficientNet-Lite0 under 12 MB


class BuildError(Exception):
    """A failed build; the message is one line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--abi", action="append", help="ABI of the native libraries; default: arm64-v8a")
    parser.add_argument("--test", metavar="CLASS", help="only run this test class, with what an earlier build made")
    arguments = parser.parse_args()
    abis = arguments.abi or ["arm64-v8a"]
    started = time.monotonic()
    try:
        if arguments.test:
            make_resources()
            test_one(arguments.test)
            return
        log("checking the tools")
        install_tools()
        log("fetching TensorFlow Lite and R8")
        fetch()
        log("making the models and Python's predictions")
        make_models()
        log("compiling the resources")
        make_resources()
        log("adapting TensorFlow Lite's library to the desktop")
        make_desktop_library()
        log("compiling and testing on the JVM, with lint")
        compile_and_test()
        log("shrinking the classes and converting them to dex")
        make_dex()
        log("packing, aligning and signing")
        pack(abis)
        log("checking the APK and what the app's benchmark wrote")
        check(abis)
        check_measurement()
    except BuildError as error:
        sys.exit(f"android: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"android: {Path(str(error.cmd[0])).name} failed with exit code {error.returncode}")
    size = APK.stat().st_size
    print(f"{APK.relative_to(ROOT)}: {size:,} bytes, signed; built in {time.monotonic() - started:.0f} s")


def log(message: str) -> None:
    print(f"android: {message}", file=sys.stderr, flush=True)


def run(*command: str | Path, **options) -> None:
    subprocess.run([str(part) for part in command], check=True, **options)


def output(*command: str | Path, **options) -> str:
    options = {"check": True, "capture_output": True, "text": True, **options}
    return subprocess.run([str(part) for part in command], **options).stdout


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def maven(*arguments: str, pom: Path = APP / "pom.xml") -> None:
    # The Kotlin compiler runs too briefly here to gain from the second compiler of the JVM.
    environment = {"MAVEN_OPTS": "-XX:TieredStopAtLevel=1", **os.environ}
    run("mvn", "-B", "--no-transfer-progress", "-f", pom, *arguments, env=environment)


# -------------------------------------------------------------------------------------------------- tools and downloads


def install_tools() -> None:
    """Install the missing tools if this is root; otherwise raise BuildError with the command."""
    missing = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if not FRAMEWORK.is_file():
        missing.add("android-framework-res")
    if not missing:
        return
    command = f"apt-get install {' '.join(sorted(missing))}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(f"tools must be installed first: {command}")
    log(command)
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    run("apt-get", "update", "-qq", **quiet)
    packages = " ".join(sorted(missing)).split()
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, **quiet)


def fetch() -> None:
    """Fetch TensorFlow Lite and R8 and check their SHA-256."""
    folder = BUILD / "aar"
    files = {"r8.jar": R8_SHA256} | {f"{name}.aar": expected for name, expected in AARS.items()}
    if not all((folder / name).is_file() for name in files):
        maven("-q", "-N", "dependency:copy@aars")
    for name, expected in files.items():
        received = sha256((folder / name).read_bytes())
        if received != expected:
            (folder / name).unlink()
            raise BuildError(f"{name} must have the SHA-256 {expected}. Received: {received}")
    for name in AARS:
        with zipfile.ZipFile(folder / f"{name}.aar") as archive:
            (folder / f"{name}.jar").write_bytes(archive.read("classes.jar"))


def google_classpath() -> str:
    """The classpath of lint and the manifest merger, which Maven fetches."""
    pom, path = APP / "tools/pom.xml", BUILD / "tools.txt"
    if not path.is_file() or path.stat().st_mtime < pom.stat().st_mtime:
        maven("-q", "dependency:build-classpath", f"-Dmdep.outputFile={path}", pom=pom)
    return path.read_text().strip()


def make_models() -> None:
    """Run the recipe and write Python's predictions for the sample photos."""
    recipe, folder = APP / "recipe.py", ROOT / "runs/android"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    edge_cv = (sys.executable, "-c", "from edge_cv.cli.app import main; main()")
    run(*edge_cv, "run", recipe, "--out", folder, env=environment, stdout=subprocess.DEVNULL)
    models = [folder / f"efficientnet_lite0_{scheme}.tflite" for scheme in ("int8", "float32")]
    small = [BUILD / f"small/small_{scheme}.tflite" for scheme in ("int16x8", "int16")]
    if not all(path.is_file() for path in small):
        run(sys.executable, APP / "golden/make_small.py", BUILD / "small", env=environment, stdout=subprocess.DEVNULL)
    run(sys.executable, APP / "golden/make_vectors.py", *models, *small, "--out", BUILD / "vectors", env=environment)


# ---------------------------------------------------------------------------------------------------- compile and test


def make_resources() -> None:
    """Merge the manifests, compile the resources and package them with the models."""
    manifest = BUILD / "AndroidManifest.xml"
    names = [name for name in AARS if not name.endswith("-api")]  # the others have the same packages
    for name in names:
        with zipfile.ZipFile(BUILD / f"aar/{name}.aar") as archive:
            (BUILD / f"aar/{name}.xml").write_bytes(archive.read("AndroidManifest.xml"))
    sdks = {"MIN_SDK_VERSION": str(MIN_SDK), "TARGET_SDK_VERSION": str(TARGET_SDK)}
    google_tools.merge_manifests(
        google_classpath(),
        APP / "app/src/main/AndroidManifest.xml",
        [BUILD / f"aar/{name}.xml" for name in names],
        {"PACKAGE": PACKAGE, "VERSION_CODE": "1", "VERSION_NAME": VERSION} | sdks,
        manifest,
    )
    text = manifest.read_text()  # Gradle adds it itself
    manifest.write_text(text.replace("<application\n", '<application\n        android:extractNativeLibs="false"\n', 1))
    run("aapt2", "compile", "--dir", APP / "app/src/main/res", "-o", BUILD / "res.zip")
    shutil.rmtree(BUILD / "gen", ignore_errors=True)
    run(
        *("aapt2", "link", "-I", FRAMEWORK, "--manifest", manifest),
        *("-o", BUILD / "resources.ap_", "--java", BUILD / "gen", "--proguard", BUILD / "manifest-rules.pro"),
        *("--debug-mode", BUILD / "res.zip", "-A", ASSETS, "-0", ".tflite"),
        "--warn-manifest-validation",  # Debian's aapt2 does not know uses-native-library
        stderr=subprocess.DEVNULL,
    )
    # Robolectric finds them through this file, which the Android Gradle plugin writes otherwise
    config = BUILD / "robolectric/com/android/tools/test_config.properties"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"android_custom_package={PACKAGE}\nandroid_merged_manifest={manifest}\n"
        f"android_merged_assets={ASSETS}\nandroid_resource_apk={BUILD / 'resources.ap_'}\n"
    )


def make_desktop_library() -> None:
    """Make a TensorFlow Lite library that runs on this desktop, for the tests."""
    folder = BUILD / "desktop"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(BUILD / "aar/tensorflow-lite.aar") as archive:
        library = archive.read("jni/x86_64/libtensorflowlite_jni.so")
    (folder / "libtensorflowlite_jni.so").write_bytes(desktop_library.adapt(library))
    shared = ("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror")
    run(*shared, APP / "desktop/bionic.c", "-o", folder / "libc.so", "-Wl,-soname,libc.so")
    for name in ("libm", "libdl", "liblog"):  # glibc has their functions; -lm links it
        run(*shared, "-x", "c", os.devnull, "-o", folder / f"{name}.so", f"-Wl,-soname,{name}.so,--no-as-needed", "-lm")


def compile_and_test() -> None:
    """Compile and test on the JVM, and run lint, side by side if an earlier build has listed the classpath."""
    classpath = BUILD / "classpath.txt"
    block = BUILD / "gradle-check/App.kt"
    block.parent.mkdir(exist_ok=True)
    block.write_text(google_tools.android_block((APP / "app/build.gradle.kts").read_text()))
    for old in (BUILD / "jars", *(APP / f"{module}/target" for module in ("core", "app", "gradle/check"))):
        shutil.rmtree(old, ignore_errors=True)  # so that removed sources leave the app
    lint = start_lint(classpath) if classpath.is_file() else None
    try:
        maven("package")
        lint = lint or start_lint(classpath)
        failed = lint.wait() != 0
        print((BUILD / "lint.txt").read_text(), end="")
        if failed:
            raise BuildError("lint must find no error; mend it or explain it in app/lint.xml")
    finally:
        if lint is not None and lint.poll() is None:
            lint.terminate()


def start_lint(classpath: Path) -> subprocess.Popen[bytes]:
    jars = [Path(path) for path in classpath.read_text().strip().split(os.pathsep)]
    libraries = [jar for jar in jars if not jar.is_relative_to(APP / "core")]  # lint reads the sources of core
    return google_tools.start_lint(google_classpath(), APP, BUILD / "AndroidManifest.xml", libraries, BUILD)


def test_one(name: str) -> None:
    """Run one class of tests. Raises BuildError if there is none of this name."""
    found = [path for module in ("core", "app") for path in (APP / module).glob("src/*[tT]est/kotlin/**/*.kt")]
    header = re.compile(rf"^class {re.escape(name)}\b", re.MULTILINE)
    homes = [path for path in found if header.search(path.read_text())]
    if not homes:
        raise BuildError(f"--test must name a test class of core or app. Received: {name}")
    modules = "core" if homes[0].is_relative_to(APP / "core") else "core,app"
    quickly = ("-Dsurefire.failIfNoSpecifiedTests=false", "-Dkotlin.compiler.incremental=true")
    maven("-o", "-q", "package", "-pl", modules, f"-Dtest={name}", *quickly)


def make_dex() -> None:
    """Convert the classes to dex, without those that the app does not use."""
    folder = BUILD / "dex"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    jars = [*sorted((BUILD / "jars").glob("*.jar")), *(BUILD / f"aar/{name}.jar" for name in AARS)]
    jars = [jar for jar in dict.fromkeys(jars) if not jar.name.startswith("core-")]
    jars += [APP / f"{module}/target/{module}-{VERSION}.jar" for module in ("core", "app")]
    classpath = (BUILD / "classpath.txt").read_text().strip().split(os.pathsep)
    (library,) = (path for path in classpath if Path(path).name.startswith("android-all-"))
    java_home = Path(shutil.which("java") or "java").resolve().parents[1]  # java.*, which the framework's jar lacks
    run(
        *("java", "-cp", BUILD / "aar/r8.jar", "com.android.tools.r8.R8", "--release", "--min-api", str(MIN_SDK)),
        *("--pg-conf", APP / "app/proguard-rules.pro", "--pg-conf", BUILD / "manifest-rules.pro"),
        *("--lib", library, "--lib", java_home, "--output", folder, *jars),
    )


# ------------------------------------------------------------------------------------------------------ pack and check


def pack(abis: list[str]) -> None:
    """Pack the APK; files that are mapped into memory are stored uncompressed and aligned."""
    key = BUILD / "debug.keystore"
    unsigned, aligned = BUILD / "unsigned.zip", BUILD / "aligned.zip"
    shutil.copy(BUILD / "resources.ap_", unsigned)
    with zipfile.ZipFile(unsigned, "a", zipfile.ZIP_DEFLATED) as archive:
        for dex in sorted((BUILD / "dex").glob("*.dex")):
            archive.write(dex, dex.name)
        for name in ("tensorflow-lite", "tensorflow-lite-gpu"):
            with zipfile.ZipFile(BUILD / f"aar/{name}.aar") as aar:
                for member in aar.namelist():
                    parts = Path(member).parts
                    if len(parts) == 3 and parts[0] == "jni" and parts[1] in abis:
                        archive.writestr(f"lib/{parts[1]}/{parts[2]}", aar.read(member), zipfile.ZIP_STORED)
    run("zipalign", "-f", "-p", "4", unsigned, aligned)
    if not key.is_file():
        run(
            *("keytool", "-genkeypair", "-keystore", key, "-storepass", "android", "-keypass", "android"),
            *("-alias", "androiddebugkey", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000"),
            *("-dname", "CN=Android Debug,O=Android,C=US"),
            stderr=subprocess.DEVNULL,
        )
    run("apksigner", "sign", "--ks", key, "--ks-pass", "pass:android", "--out", APK, aligned)


def check(abis: list[str]) -> None:
    """Raise BuildError if a phone would not accept the APK, or if it is incomplete."""
    certificates = output("apksigner", "verify", "--min-sdk-version", str(MIN_SDK), "--print-certs", APK)
    must("Android Debug" in certificates, "the signature must be the debug key's", certificates)
    run("zipalign", "-c", "-p", "4", APK, stdout=subprocess.DEVNULL)
    badging = output("aapt", "dump", "badging", APK)
    for line in (
        f"package: name='{PACKAGE}'",
        f"sdkVersion:'{MIN_SDK}'",
        f"targetSdkVersion:'{TARGET_SDK}'",
        "uses-permission: name='android.permission.CAMERA'",
        f"launchable-activity: name='{PACKAGE}.MainActivity'",
        f"native-code: {' '.join(repr(abi) for abi in sorted(abis))}",
    ):
        must(line in badging, f"the manifest must contain {line}", badging)
    tree = output("aapt", "dump", "xmltree", APK, "AndroidManifest.xml")
    benchmark = tree[tree.find(f"{PACKAGE}.BenchmarkActivity") :]
    benchmark = benchmark.split("E: activity")[0]
    must("android:exported" in benchmark, "BenchmarkActivity must be exported", tree)
    must("android.permission.DUMP" in benchmark, "only adb's shell may start BenchmarkActivity", tree)
    must(re.search("extractNativeLibs.*0x0$", tree, re.MULTILINE), "libraries must be mapped from the APK", tree)
    must("uses-native-library" in tree, "the manifest must name the GPU's drivers", tree)
    with zipfile.ZipFile(APK) as archive:
        members = {member.filename: member for member in archive.infolist()}
        models = [name for name in members if re.fullmatch(r"assets/models/.*\.tflite", name)]
        must(models, "the APK must have a model", sorted(members))
        for name in models:
            sidecar = json.loads(archive.read(name.removesuffix("tflite") + "json"))
            digest = sha256(archive.read(name))
            must(sidecar["sha256"] == digest, f"{name} must have the SHA-256 of its sidecar", digest)
    stored = [*models, *(f"lib/{abi}/libtensorflowlite{kind}_jni.so" for abi in abis for kind in ("", "_gpu"))]
    for name in stored:
        must(name in members, f"the APK must have {name}", sorted(members))
        must(members[name].compress_type == zipfile.ZIP_STORED, f"{name} must be stored uncompressed", "compressed")
    classes = output("dexdump", APK)
    for name in ("MainActivity", "BenchmarkActivity", "SharedFiles", "TfliteRuntime"):
        must(f"Ldev/edgecv/demo/{name};" in classes, f"classes.dex must have {name}", "none")
    rest = APK.stat().st_size - sum(members[name].file_size for name in models)
    if abis == ["arm64-v8a"]:
        limit = MAX_BYTES_WITHOUT_MODELS
        must(rest <= limit, f"the APK without models must have at most {limit} bytes", rest)


def check_measurement() -> None:
    """Let Python read the accuracy that a test of the app measured, as `edge-cv report` does."""
    code = "import sys; from edge_cv.evaluation import Measurement; print(Measurement.load(sys.argv[1]).accuracy)"
    written = BUILD / "measurements/accuracy.json"
    read = output(sys.executable, "-c", code, written, env={**os.environ, "PYTHONPATH": str(ROOT)})
    must("images=4, top1=3" in read, "the app's accuracy must be 3 of 4 photos", read)


def must(condition: object, requirement: str, received: object) -> None:
    if not condition:
        raise BuildError(f"{requirement}. Received: {received}")


if __name__ == "__main__":
    main()
