"""Show why a trained network predicts what it does: the paper's figures, or numbers over a split.

python src/visualize.py ckpt_path=FILE image=IMAGE|FOLDER|NAME [point=X,Y] [what=FIGURE,FIGURE]
python src/visualize.py ckpt_path=FILE [what=TOPIC,TOPIC]             over the validation split

figure4          image, similarity and Grad-CAM in PartI and PartII, a row a pixel
similarity       cosine similarity to the pixel's feature, in each part and atrous layer
gradcam          class activation of the pixel's score, in each part
offsets          where ADC samples, how far it moves, modulation, features before and after
receptive_field  effective receptive field in each part (takes the memory of a training step)
probabilities    class probabilities at the pixel, in each part
feedback         prediction and errors of each part, and what changed
figure3          image, truth, predictions; with compare=FILE,FILE other checkpoints' too
"""

from cyclenet.config.commands import VisualizeConfig


def run(cfg: VisualizeConfig) -> int:
    """Draw what the configuration asks for."""
    from cyclenet.lab.explain.visualize import visualize

    return 1 if visualize(cfg) else 0
