"""Package recbole_molar; `properties/` at the root ships inside it."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
REPORT = ["jinja2>=3.1", "scikit-learn>=1.5"]

setup(
    name="recbole_molar",
    version="0.1.0",
    description="Molar, a multimodal-LLM sequential recommender, as a plugin for RecBole",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=[*find_packages(include=["recbole_molar", "recbole_molar.*", "dataset_converters*"]), "recbole_molar.properties"],
    package_dir={"recbole_molar.properties": "properties"},
    package_data={"recbole_molar.properties": ["*.yaml", "*/*.yaml", "*/*/*.yaml"], "recbole_molar.compare.report": ["*.html", "page.css", "page.js"]},
    install_requires=[
        "recbole>=1.2.0,<1.3", "torch>=2.4", "transformers>=5.17", "peft>=0.21", "accelerate>=1.10", "tokenizers>=0.21",
        "safetensors>=0.4.5", "pillow>=10", "pydantic>=2.10,<3", "pyyaml>=6", "tqdm>=4.66", "numpy>=1.26", "pandas>=2,<3", "psutil>=5.9", "setuptools",
    ],
    extras_require={
        "test": ["pytest>=8", "hypothesis>=6.100", "ruff>=0.9", "httpx2>=2,<3", "pyarrow>=15", "optuna>=5,<6", "num2words>=0.5", *REPORT],
        "images": ["httpx2>=2,<3"],
        "parquet": ["pyarrow>=15"],
        "quantization": ["bitsandbytes>=0.46"],
        "smolvlm": ["num2words>=0.5"],
        "tune": ["optuna>=5,<6"],
        "report": REPORT,
        "browser": ["playwright>=1.40"],
    },
    entry_points={"console_scripts": ["recbole-molar=recbole_molar.__main__:main"]},
)
