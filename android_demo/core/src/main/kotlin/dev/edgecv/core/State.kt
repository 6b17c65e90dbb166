package dev.edgecv.core

import kotlinx.serialization.json.JsonObject

/** A message to the user; the app has its text. */
enum class Notice { OPENING, NO_MODEL, MEASURING, EVALUATING }

/**
 * An open model and its results.
 *
 * @property record null while the model is being opened, or if it cannot be.
 * @property runtime the runtime and delegate in use, such as "tensorflow-lite 2.16.1 XNNPACK".
 * @property fallback why another delegate than the requested one is in use; null if the requested one is.
 * @property predictions for the last picture, most probable first.
 */
data class ModelState(
    val file: String,
    val record: Record? = null,
    val runtime: String? = null,
    val fallback: String? = null,
    val predictions: List<Prediction> = emptyList(),
    val timings: Timings = Timings(),
)

/** Whether two models had the same first class for the last pictures, [LAST] at most. */
data class Agreement(val last: List<Boolean> = emptyList()) {
    val equal: Int get() = last.count { it }

    operator fun plus(same: Boolean) = Agreement((last + same).takeLast(LAST))

    companion object {
        const val LAST = 100
    }
}

/** The result of a benchmark or an accuracy run of a model file, or its failure, in the form of `measurement.json`. */
data class Measured(val file: String, val result: JsonObject)

/**
 * Everything that the screen shows; each change makes a new value.
 *
 * @property settings the requested settings.
 * @property model the open model; null if there is none.
 * @property second the model that it is compared with.
 * @property error why the last step failed, one sentence; null if it succeeded.
 * @property measured the last benchmark or accuracy run, until it is dismissed.
 * @property progress of the accuracy run in progress; null if there is none.
 */
data class State(
    val settings: Settings,
    val model: ModelState? = null,
    val second: ModelState? = null,
    val agreement: Agreement = Agreement(),
    val notice: Notice? = Notice.NO_MODEL,
    val error: String? = null,
    val measured: Measured? = null,
    val progress: Progress? = null,
)
