package dev.edgecv.demo

import android.app.Activity
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ImageButton
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.TextView
import android.widget.Toolbar
import dev.edgecv.core.Measured
import dev.edgecv.core.ModelState
import dev.edgecv.core.ModelVariant
import dev.edgecv.core.Notice
import dev.edgecv.core.Prediction
import dev.edgecv.core.State
import kotlin.math.roundToInt

/** The views of the main screen; they show a [ScreenState] and report the user's actions. */
class Screen(private val activity: Activity, private val actions: Actions) {
    /** What a user can do on the main screen. */
    interface Actions {
        val workspace: Workspace

        fun useCamera()

        fun choosePhoto()

        fun chooseModel()

        /** Chooses a folder of labelled photos for an accuracy run. */
        fun chooseFolder()

        /** Shares the result of the benchmark. */
        fun share()

        fun rename(variant: ModelVariant)
    }

    private val workspace get() = actions.workspace
    private val sheet: SettingsSheet

    init {
        activity.setContentView(R.layout.main)
        activity.setActionBar(view<Toolbar>(R.id.bar))
        view<Button>(R.id.camera_button).setOnClickListener { actions.useCamera() }
        view<Button>(R.id.photo_button).setOnClickListener { actions.choosePhoto() }
        view<Button>(R.id.open_button).setOnClickListener { actions.chooseModel() }
        view<Button>(R.id.benchmark_button).setOnClickListener {
            if (isMeasuring(workspace.state.models)) workspace.session.cancel() else workspace.measure()
        }
        view<ImageButton>(R.id.measured_share).setOnClickListener { actions.share() }
        view<ImageButton>(R.id.measured_close).setOnClickListener { workspace.session.dismissMeasured() }
        sheet = SettingsSheet(activity, actions)
        view<View>(R.id.root).setOnApplyWindowInsetsListener { _, insets ->
            @Suppress("DEPRECATION") // the replacements need Android 11
            insets.run { keepClear(systemWindowInsetLeft, systemWindowInsetTop, systemWindowInsetRight, systemWindowInsetBottom) }
            insets
        }
    }

    /** Keeps the controls clear of the system's bars; the picture and the card lie below the bars. */
    private fun keepClear(left: Int, top: Int, right: Int, bottom: Int) {
        val beside = activity.resources.getBoolean(R.bool.card_beside)
        view<View>(R.id.bar).setPadding(left, top, if (beside) 0 else right, 0)
        view<View>(R.id.card).setPadding(if (beside) 0 else left, if (beside) top else 0, right, bottom)
        view<View>(R.id.sheet_content).setPadding(left, 0, right, bottom)
    }

    fun show(state: ScreenState) {
        val models = state.models
        activity.actionBar?.subtitle = state.chosen?.let { activity.getString(R.string.variant, it.name, state.catalogue.label(it)) }
        showMessage(message(state))
        showPhoto(state.photo)
        showMeasured(models.measured)
        view<Button>(R.id.benchmark_button).setText(if (isMeasuring(models)) R.string.stop else R.string.benchmark)
        showPredictions(R.id.predictions, models.model, state.thresholdPercent)
        showPredictions(R.id.second_predictions, models.second, state.thresholdPercent)
        showComparison(state)
        view<TextView>(R.id.runtime).text = runtime(models)
        view<TextView>(R.id.timings).run {
            text = models.model?.let(::timings).orEmpty()
            visibility = if (text.isEmpty()) View.GONE else View.VISIBLE
        }
        sheet.show(state)
    }

    private fun isMeasuring(models: State) = models.notice == Notice.MEASURING || models.notice == Notice.EVALUATING

    private fun message(state: ScreenState): String? = when {
        state.models.error != null -> state.models.error
        state.models.notice == Notice.OPENING -> activity.getString(R.string.opening)
        state.models.notice == Notice.NO_MODEL -> activity.getString(R.string.no_model)
        state.models.notice == Notice.MEASURING -> activity.getString(R.string.measuring)
        state.models.notice == Notice.EVALUATING -> state.models.progress?.run { activity.getString(R.string.evaluating, done, photos) }
        else -> state.problem ?: nothingAbove(state)
    }

    private fun nothingAbove(state: ScreenState): String? {
        val predictions = state.models.model?.predictions.orEmpty()
        val percent = state.thresholdPercent
        if (predictions.isEmpty() || predictions.any { it.probability * 100 >= percent }) return null
        return activity.getString(R.string.nothing_above, percent)
    }

    private fun showMessage(text: String?) = view<TextView>(R.id.message).run {
        if (this.text.toString() != text.orEmpty()) this.text = text // a live region reads each new text aloud
        visibility = if (text == null) View.GONE else View.VISIBLE
    }

    private fun showPhoto(photo: ChosenPhoto?) = view<ImageView>(R.id.photo).run {
        setImageBitmap(photo?.picture)
        visibility = if (photo == null) View.GONE else View.VISIBLE
    }

    private fun showMeasured(measured: Measured?) {
        view<View>(R.id.measured).visibility = if (measured == null) View.GONE else View.VISIBLE
        if (measured == null) return
        view<TextView>(R.id.measured_title).text = MeasuredText.title(activity, measured)
        view<TextView>(R.id.measured_text).text = MeasuredText.of(activity, measured)
    }

    private fun runtime(state: State): String {
        val model = state.model ?: return ""
        val requested = state.settings
        val instead = model.fallback?.let { activity.getString(R.string.fallback, model.runtime.orEmpty(), requested.delegate.label, it) }
        return instead ?: model.runtime?.let { activity.getString(R.string.running, it, requested.threads) }.orEmpty()
    }

    private fun timings(model: ModelState): String {
        val timings = model.timings
        val preprocess = timings.spread { it.preprocessMs } ?: return ""
        val inference = timings.spread { it.inferenceMs } ?: return ""
        val total = timings.spread { it.totalMs } ?: return ""
        return activity.getString(
            R.string.timings, preprocess.medianMs, inference.medianMs, total.medianMs, timings.last.size, total.p90Ms,
        )
    }

    private fun showComparison(state: ScreenState) {
        val second = state.models.second
        val visible = if (second == null) View.GONE else View.VISIBLE
        for (id in listOf(R.id.second, R.id.first_title, R.id.agreement)) view<View>(id).visibility = visible
        if (second == null) return
        view<TextView>(R.id.first_title).text = column(state, state.chosen, state.models.model)
        view<TextView>(R.id.second_title).text = column(state, state.second, second)
        view<TextView>(R.id.agreement).text = agreement(state.models, second)
    }

    /** The title of one model in a comparison: its scheme, or its network where these differ, and its time. */
    private fun column(state: ScreenState, variant: ModelVariant?, model: ModelState?): String {
        val label = variant?.let { state.catalogue.label(it) }.orEmpty()
        val title = if (state.chosen?.name == state.second?.name) label else activity.getString(R.string.variant, variant?.name.orEmpty(), label)
        val total = model?.timings?.spread { it.totalMs } ?: return title
        return activity.getString(R.string.compared, title, total.medianMs)
    }

    private fun agreement(state: State, second: ModelState): String {
        val pictures = state.agreement.last
        if (pictures.isEmpty() || second.predictions.isEmpty()) return ""
        val now = activity.getString(if (pictures.last()) R.string.same_class else R.string.other_class)
        return activity.resources.getQuantityString(R.plurals.agreement, pictures.size, now, state.agreement.equal, pictures.size)
    }

    private fun showPredictions(id: Int, model: ModelState?, percent: Int) {
        val rows = view<ViewGroup>(id)
        val shown = model?.predictions.orEmpty().filter { it.probability * 100 >= percent }
        while (rows.childCount > shown.size) rows.removeViewAt(rows.childCount - 1)
        while (rows.childCount < shown.size) LayoutInflater.from(activity).inflate(R.layout.prediction, rows)
        shown.forEachIndexed { i, prediction -> showPrediction(rows.getChildAt(i), prediction) }
    }

    private fun showPrediction(row: View, prediction: Prediction) {
        val percent = activity.getString(R.string.percent, prediction.probability * 100)
        row.findViewById<TextView>(R.id.label)!!.text = prediction.label
        row.findViewById<TextView>(R.id.probability)!!.text = percent
        row.findViewById<ProgressBar>(R.id.probability_bar)!!.progress = (prediction.probability * 1000).roundToInt()
        row.contentDescription = activity.getString(R.string.prediction, prediction.label, percent)
    }

    private fun <T : View> view(id: Int): T = activity.findViewById<T>(id)!!
}
