"""Installs signver_kit. Names, version and requirements come from settings.ini, which nbdev reads too."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
package = settings["lib_name"]


def lines(key):
    """The non-empty lines of a setting: one requirement each."""
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


def minor_after(version):
    """'3.13' -> '3.14': the first Python that is not supported."""
    major, minor = version.split(".")
    return f"{major}.{int(minor) + 1}"


pythons = [f"3.{m}" for m in range(int(settings["min_python"].split(".")[1]), int(settings["max_python"].split(".")[1]) + 1)]

setup(
    name=package,
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=settings["keywords"].split(),
    classifiers=["Intended Audience :: Developers", "Intended Audience :: Education", "Intended Audience :: Science/Research",
                 "Framework :: Jupyter", "Topic :: Scientific/Engineering :: Image Recognition"]
                + [f"Programming Language :: Python :: {p}" for p in pythons],
    python_requires=f">={settings['min_python']},<{minor_after(settings['max_python'])}",
    install_requires=lines("requirements"),
    extras_require={extra: lines(f"{extra}_requirements") for extra in ("dev", "docs", "app", "openvino", "export", "torch", "jax", "gpu", "gaudi")},
    entry_points={"console_scripts": lines("console_scripts")},
    # The benchmark notebooks travel inside the package, so that `signver bench` runs from a wheel. Their results do not.
    packages=[package, f"{package}._benchmarks"],
    package_dir={package: settings["lib_path"], f"{package}._benchmarks": "benchmarks"},
    package_data={package: ["models/*/*.json", "models/*/*.h5"],
                  f"{package}._benchmarks": ["*.ipynb", "presets/*/*.json", "published*.csv"]},
    include_package_data=False,
    zip_safe=False,
)
