"""What `ganlens` offers, for editors and type checkers; at run time each name is imported when it is first used."""

from ganlens import plots as plots
from ganlens.comparisons.segmentation_distance import segmentation_distance as segmentation_distance
from ganlens.comparisons.side_by_side import Comparison as Comparison
from ganlens.comparisons.side_by_side import compare as compare
from ganlens.comparisons.unit_matches import match_units as match_units
from ganlens.dissection.dissect import dissect as dissect
from ganlens.dissection.result import Dissection as Dissection
from ganlens.dissection.sanity import sanity_checks as sanity_checks
from ganlens.dissection.unit_formulas import unit_formulas as unit_formulas
from ganlens.effects.ablation import ablation_effect as ablation_effect
from ganlens.effects.accuracy import class_accuracy as class_accuracy
from ganlens.effects.artifacts import find_artifacts as find_artifacts
from ganlens.effects.context import context as context
from ganlens.effects.context import where as where
from ganlens.effects.context_result import Context as Context
from ganlens.effects.importance import important_units as important_units
from ganlens.effects.insertion import average_causal_effect as average_causal_effect
from ganlens.effects.insertion import insertion_effect as insertion_effect
from ganlens.effects.minimal_units import minimal_units as minimal_units
from ganlens.effects.optimization import optimize_units as optimize_units
from ganlens.effects.paintable import paintable as paintable
from ganlens.effects.rankings import compare_rankings as compare_rankings
from ganlens.effects.rankings import match_and_cause as match_and_cause
from ganlens.effects.rankings import unit_gradients as unit_gradients
from ganlens.effects.single_units import unit_effects as unit_effects
from ganlens.models import list_models as list_models
from ganlens.models import load_generator as load_generator
from ganlens.models.base import Generator as Generator
from ganlens.models.classifier import Classifier as Classifier
from ganlens.models.editing import Edit as Edit
from ganlens.models.editing import ablate as ablate
from ganlens.models.editing import insert as insert
from ganlens.pages.painting_page import painting_page as painting_page
from ganlens.pages.report import report as report
from ganlens.recipe import Recipe as Recipe
from ganlens.recipe import replay as replay
from ganlens.segmenters import list_segmenters as list_segmenters
from ganlens.segmenters import load_segmenter as load_segmenter
from ganlens.segmenters.base import Concept as Concept
from ganlens.segmenters.base import Segmenter as Segmenter
from ganlens.widgets.canvas import InterventionCanvas as InterventionCanvas
from ganlens.widgets.comparison import ComparisonView as ComparisonView
from ganlens.widgets.explorer import Explorer as Explorer
from ganlens.widgets.gallery import UnitGallery as UnitGallery
from ganlens.widgets.heatmap import IoUHeatmap as IoUHeatmap

__version__: str
__all__: list[str]
