"""The Android Gradle plugin's manifest merger and lint, run from their libraries, and its script as plain Kotlin."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.sax.saxutils import quoteattr

MERGER = "com.android.manifmerger.Merger"
LINT = "com.android.tools.lint.Main"
# These programs run too briefly to gain from the second compiler of the JVM.
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")


def merge_manifests(classpath: str, main: Path, libraries: list[Path], properties: dict[str, str], out: Path) -> None:
    """Merge the app's manifest with those of its libraries, as the Android Gradle plugin does.

    Args:
        classpath: of the merger.
        main: the manifest of the app.
        libraries: the manifests of the AARs.
        properties: values for the merged manifest, by the merger's names, such as `MIN_SDK_VERSION`.
        out: the merged manifest.

    Raises:
        subprocess.CalledProcessError: the manifests contradict each other.
    """
    values = [part for name, value in properties.items() for part in ("--property", f"{name}={value}")]
    named = ":".join(str(path) for path in libraries)
    command = [*JAVA, "-cp", classpath, MERGER, "--main", str(main), "--libs", named, *values, "--out", str(out)]
    out.unlink(missing_ok=True)
    done = subprocess.run([*command, "--log", "WARNING"], check=True, capture_output=True, text=True)
    if not out.is_file():  # the merger's exit code is 0 in any case
        raise subprocess.CalledProcessError(1, [MERGER], done.stdout, done.stderr)


def start_lint(
    classpath: str, app: Path, manifest: Path, libraries: list[Path], build: Path
) -> subprocess.Popen[bytes]:
    """Start lint on both modules; an error fails it. app/lint.xml has the checks that do not apply.

    Args:
        classpath: of lint.
        app: the folder of the Android project.
        manifest: the merged manifest.
        libraries: the jars that the sources are compiled against.
        build: the folder for the description of the project and lint's report.

    Returns:
        The running process: exit code 0 if there is no error; its output is in `lint.txt` of the build folder.
    """
    project = build / "lint-project.xml"  # a lint.xml would be read as a configuration
    project.write_text(lint_project(app, manifest, libraries))
    command = [*JAVA, "-cp", classpath, LINT, "--project", str(project), "--config", str(app / "app/lint.xml")]
    with (build / "lint.txt").open("wb") as report:
        return subprocess.Popen(
            [*command, "--exitcode", "--quiet", "--text", "stdout"], stdout=report, stderr=subprocess.STDOUT
        )


def lint_project(app: Path, manifest: Path, libraries: list[Path]) -> str:
    """The description of the project that lint's command line reads."""

    def elements(tag: str, attribute: str, paths: list[Path]) -> list[str]:
        return [f"<{tag} {attribute}={quoteattr(str(path))}/>" for path in paths]

    def sources(module: str) -> list[str]:
        return elements("src", "file", sorted((app / module / "src/main/kotlin").rglob("*.kt")))

    jars = elements("classpath", "jar", libraries)
    lines = [
        *("<project>", *elements("root", "dir", [app])),
        '<module name="app" android="true" library="false" compile-sdk-version="36">',
        *(*elements("manifest", "file", [manifest]), *elements("resource", "file", [app / "app/src/main/res"])),
        *(*sources("app"), *jars, '<dep module="core"/>', "</module>"),
        *('<module name="core" android="false" library="true">', *sources("core"), *jars, "</module>"),
        "</project>",
    ]
    return "\n".join(lines) + "\n"


def android_block(script: str) -> str:
    """The `android {}` block of a Gradle script as a Kotlin function, which is compiled against the plugin's API.

    Raises:
        ValueError: the script has no such block.
    """
    start = script.index("\nandroid {\n") + 1
    end = script.index("\n}\n", start)
    body = script[start:end].split("\n", 1)[1]
    return (
        "import com.android.build.api.dsl.ApplicationExtension\nimport org.gradle.api.JavaVersion\n\n"
        f"fun ApplicationExtension.android() {{\n{body}\n}}\n"
    )
