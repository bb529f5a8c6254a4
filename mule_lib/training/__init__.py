"""Training: the steered teacher and its exact cache, balanced batches, one trainer, the gradients' alignment."""

from mule_lib.training.teacher import TeacherAnswer, TeacherFileError
from mule_lib.training.train import Settings, Trained, load_model, train
from mule_lib.training.trainer import DivergedError

__all__ = ["DivergedError", "Settings", "TeacherAnswer", "TeacherFileError", "Trained", "load_model", "train"]
