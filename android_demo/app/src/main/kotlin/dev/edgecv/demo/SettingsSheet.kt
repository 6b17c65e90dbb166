package dev.edgecv.demo

import android.app.Activity
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.ImageButton
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.TextView
import dev.edgecv.core.Delegate
import dev.edgecv.core.ModelVariant
import dev.edgecv.core.Settings

/** The sheet with the choice of models and the settings. */
class SettingsSheet(private val activity: Activity, private val actions: Screen.Actions) {
    private val workspace get() = actions.workspace
    private val settings get() = workspace.state.models.settings
    private val shown = HashMap<Int, Pair<List<String>, Int>>() // by spinner, so that a spinner in use is not rebuilt
    private val threads = listOf(1, 2, 4, 8).filter { it == 1 || it <= Runtime.getRuntime().availableProcessors() }

    init {
        view<View>(R.id.sheet_veil).setOnClickListener { close() }
        view<ImageButton>(R.id.sheet_close).setOnClickListener { close() }
        view<Button>(R.id.accuracy_button).setOnClickListener { actions.chooseFolder() }
        view<Button>(R.id.rename_button).setOnClickListener { added()?.let(actions::rename) }
        view<Button>(R.id.delete_button).setOnClickListener { added()?.let(workspace::delete) }
        val threshold = view<SeekBar>(R.id.threshold)
        threshold.progress = workspace.state.thresholdPercent
        threshold.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, percent: Int, byUser: Boolean) =
                workspace.change { copy(thresholdPercent = percent) }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
    }

    private fun close() = workspace.change { copy(settingsOpen = false) }

    /** The chosen model, if the user may rename and delete it. */
    private fun added() = workspace.state.chosen?.takeIf { it.source.added }

    fun show(state: ScreenState) {
        view<View>(R.id.sheet).visibility = if (state.settingsOpen) View.VISIBLE else View.GONE
        view<TextView>(R.id.threshold_label).text = activity.getString(R.string.threshold, state.thresholdPercent)
        for (id in listOf(R.id.rename_button, R.id.delete_button)) view<Button>(id).isEnabled = state.chosen?.source?.added == true
        view<Button>(R.id.accuracy_button).isEnabled = state.models.model?.runtime != null && state.models.notice == null
        showModels(state)
        setItems(R.id.delegate, Delegate.entries.map { it.label }, state.models.settings.delegate.ordinal) {
            workspace.changeSettings(Settings(settings.threads, Delegate.entries[it]))
        }
        setItems(R.id.threads, threads.map { it.toString() }, threads.indexOf(state.models.settings.threads).coerceAtLeast(0)) {
            workspace.changeSettings(Settings(threads[it], settings.delegate))
        }
    }

    private fun showModels(state: ScreenState) {
        val catalogue = state.catalogue
        val chosen = state.chosen
        setItems(R.id.model, catalogue.names, catalogue.names.indexOf(chosen?.name)) { at ->
            val now = workspace.state
            val name = now.catalogue.names[at]
            if (name != now.chosen?.name) now.catalogue.find(name, now.chosen?.scheme)?.let(workspace::choose)
        }
        val variants = chosen?.let { catalogue.of(it.name) }.orEmpty()
        setItems(R.id.precision, variants.map(catalogue::label), variants.indexOf(chosen)) { workspace.choose(variants[it]) }
        val others: List<ModelVariant?> = listOf(null) + catalogue.variants.filter { it != chosen }
        val names = others.map { if (it == null) activity.getString(R.string.nothing) else activity.getString(R.string.variant, it.name, catalogue.label(it)) }
        setItems(R.id.compare, names, others.indexOf(state.second).coerceAtLeast(0)) { workspace.compareWith(others[it]) }
    }

    private fun setItems(id: Int, texts: List<String>, selected: Int, onChoice: (Int) -> Unit) {
        val spinner = view<Spinner>(id)
        if (shown[id] != texts to selected) {
            shown[id] = texts to selected
            spinner.onItemSelectedListener = null
            val adapter = ArrayAdapter(activity, android.R.layout.simple_spinner_item, texts)
            adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
            spinner.adapter = adapter
            if (selected >= 0) spinner.setSelection(selected, false)
        }
        spinner.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>, view: View?, at: Int, id: Long) {
                if (at != selected) onChoice(at)
            }

            override fun onNothingSelected(parent: AdapterView<*>) = Unit
        }
    }

    private fun <T : View> view(id: Int): T = activity.findViewById<T>(id)!!
}
