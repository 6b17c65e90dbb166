package dev.edgecv.demo

import android.Manifest
import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.graphics.SurfaceTexture
import android.net.Uri
import android.os.Bundle
import android.view.LayoutInflater
import android.view.Surface
import android.view.TextureView
import android.view.View
import android.view.ViewGroup
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.TextView
import dev.edgecv.core.Benchmark
import dev.edgecv.core.BenchmarkRequest
import dev.edgecv.core.Catalogue
import dev.edgecv.core.Choice
import dev.edgecv.core.Delegate
import dev.edgecv.core.InputError
import dev.edgecv.core.Notice
import dev.edgecv.core.Photo
import dev.edgecv.core.Session
import dev.edgecv.core.Settings
import dev.edgecv.core.Spread
import dev.edgecv.core.State
import dev.edgecv.core.reason
import java.io.File
import java.util.concurrent.Executors
import kotlin.math.roundToInt

/** The screen: what the camera sees or a chosen photo, and what the model makes of it. */
class MainActivity : Activity() {
    /** What outlives a rotation: the open model, the chosen photo, and which activity shows them. */
    private class Kept {
        @Volatile
        var shownBy: MainActivity? = null
        val session = Session(TfliteRuntime, Settings(threads = 1, delegate = Delegate.XNNPACK)) { state ->
            shownBy?.runOnUiThread { shownBy?.show(state) }
        }
        val files = Executors.newSingleThreadExecutor()!! // reading photos and models, never on the screen's thread
        var catalogue = Catalogue(emptyList())
        var chosen: Choice? = null
        var photo: Photo? = null
        var picture: Bitmap? = null
        var thresholdPercent = 0
        var trouble: String? = null // with the camera, or with a file that was chosen
        var asked = false // for the camera, once: whoever refused it is not asked again at each rotation
    }

    private lateinit var kept: Kept
    private lateinit var camera: Camera
    private val texture get() = view<TextureView>(R.id.preview)

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        @Suppress("DEPRECATION") // androidx's way would bring androidx
        val before = lastNonConfigurationInstance as Kept?
        kept = before ?: Kept()
        kept.shownBy = this
        camera = Camera(
            this,
            onFrame = { image, degrees ->
                if (kept.session.isFree) {
                    val frame = Camera.copy(image)
                    kept.session.offer { frame.toPhoto(degrees) }
                }
            },
            onFailure = { reason -> onScreen { trouble(getString(R.string.camera_failed, reason)) } },
        )
        build()
        if (before == null) kept.files.execute { load() }
        show(kept.session.state)
        kept.photo?.let { showPhoto() }
    }

    @Suppress("OVERRIDE_DEPRECATION")
    override fun onRetainNonConfigurationInstance(): Any = kept

    override fun onResume() {
        super.onResume()
        if (kept.photo == null) startCamera()
    }

    override fun onPause() {
        camera.stop()
        super.onPause()
    }

    override fun onDestroy() {
        if (kept.shownBy === this) kept.shownBy = null
        if (!isChangingConfigurations) {
            kept.files.shutdown()
            kept.session.close()
        }
        super.onDestroy()
    }

    // ---------------------------------------------------------------------------------------------- models and settings

    private fun load() {
        val found = Catalogue.of(Models.all(applicationContext))
        onScreen {
            kept.catalogue = found
            showChoices()
            found.choices.firstOrNull()?.let { choose(it) }
        }
    }

    private fun choose(choice: Choice) {
        if (choice == kept.chosen) return
        kept.chosen = choice
        kept.session.open(choice.source)
        showChoices()
        again()
    }

    private fun use(settings: Settings) {
        if (settings == kept.session.state.settings) return
        kept.session.use(settings)
        again()
    }

    /** Classifies the chosen photo, where there is one; the camera's next frame comes by itself. */
    private fun again() {
        val photo = kept.photo ?: return
        kept.session.classify { photo }
    }

    private fun opened(uri: Uri) = kept.files.execute {
        try {
            val choice = Catalogue.choice(Models.keep(applicationContext, uri))
            onScreen {
                kept.catalogue += choice
                kept.chosen = null
                kept.trouble = null
                choose(choice)
            }
        } catch (error: InputError) {
            onScreen { trouble(error.reason()) }
        }
    }

    private fun picked(uri: Uri) = kept.files.execute {
        try {
            val photo = Gallery.decode(applicationContext, uri)
            val picture = Gallery.bitmap(photo, SHOWN_PIXELS)
            onScreen {
                camera.stop()
                kept.photo = photo
                kept.picture = picture
                kept.trouble = null
                showPhoto()
                again()
            }
        } catch (error: InputError) {
            onScreen { trouble(error.reason()) }
        } catch (_: OutOfMemoryError) {
            onScreen { trouble(getString(R.string.photo_failed, "it is too large for this device")) }
        }
    }

    private fun measure() {
        val folder = getExternalFilesDir("benchmark")?.let { File(it, "app") }?.apply { mkdirs() } ?: return
        val settings = kept.session.state.settings
        val request = BenchmarkRequest(folder.name, runs = 50, warmup = 10, threads = listOf(settings.threads), delegate = settings.delegate)
        kept.session.measure(Benchmark(TfliteRuntime, AndroidMachine(applicationContext)), request) { Benchmark.write(folder, it) }
        again()
    }

    // ------------------------------------------------------------------------------------------------------- the camera

    private fun startCamera() {
        if (!camera.exists) return trouble(getString(R.string.camera_missing))
        if (!granted()) {
            if (kept.asked) return trouble(getString(R.string.camera_refused))
            kept.asked = true
            return requestPermissions(arrayOf(Manifest.permission.CAMERA), CAMERA)
        }
        trouble(null)
        val surface = texture.surfaceTexture ?: return // its listener calls again
        camera.start(surface, SHORT_SIDE_PIXELS, displayDegrees())
        layPreview()
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<String>, results: IntArray) {
        if (request != CAMERA) return
        if (results.firstOrNull() == PackageManager.PERMISSION_GRANTED) startCamera() else trouble(getString(R.string.camera_refused))
    }

    private fun layPreview() {
        if (texture.width > 0) texture.setTransform(camera.previewTransform(texture.width, texture.height, displayDegrees()))
    }

    @Suppress("DEPRECATION") // what replaces it needs Android 11
    private fun displayDegrees() = when (windowManager.defaultDisplay.rotation) {
        Surface.ROTATION_90 -> 90
        Surface.ROTATION_180 -> 180
        Surface.ROTATION_270 -> 270
        else -> 0
    }

    private fun backToCamera() {
        kept.photo = null
        kept.picture = null
        view<ImageView>(R.id.photo).visibility = View.GONE
        kept.asked = false
        startCamera()
    }

    private inner class Preview : TextureView.SurfaceTextureListener {
        override fun onSurfaceTextureAvailable(surface: SurfaceTexture, width: Int, height: Int) {
            if (kept.photo == null && granted()) startCamera()
        }

        override fun onSurfaceTextureSizeChanged(surface: SurfaceTexture, width: Int, height: Int) = layPreview()

        override fun onSurfaceTextureDestroyed(surface: SurfaceTexture): Boolean {
            camera.stop()
            return true
        }

        override fun onSurfaceTextureUpdated(surface: SurfaceTexture) = Unit
    }

    private fun granted() = checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

    // -------------------------------------------------------------------------------------------------------- the screen

    private fun build() {
        setContentView(R.layout.main)
        texture.surfaceTextureListener = Preview()
        view<Button>(R.id.camera_button).setOnClickListener { backToCamera() }
        view<Button>(R.id.photo_button).setOnClickListener { pick("image/*", PHOTO) }
        view<Button>(R.id.open_button).setOnClickListener { pick("*/*", MODEL) }
        view<Button>(R.id.benchmark_button).setOnClickListener { measure() }
        val threshold = view<SeekBar>(R.id.threshold)
        threshold.progress = kept.thresholdPercent
        threshold.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, percent: Int, byUser: Boolean) {
                kept.thresholdPercent = percent
                show(kept.session.state)
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
        val settings = kept.session.state.settings
        choices(R.id.delegate, Delegate.entries.map { it.label }, settings.delegate.ordinal) {
            use(kept.session.state.settings.copy(delegate = Delegate.entries[it]))
        }
        val cores = Runtime.getRuntime().availableProcessors()
        val threads = listOf(1, 2, 4, 8).filter { it == 1 || it <= cores }
        choices(R.id.threads, threads.map { it.toString() }, threads.indexOf(settings.threads).coerceAtLeast(0)) {
            use(kept.session.state.settings.copy(threads = threads[it]))
        }
        showChoices()
    }

    private fun pick(type: String, request: Int) = try {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(type)
        startActivityForResult(intent, request)
    } catch (error: ActivityNotFoundException) {
        trouble(getString(R.string.photo_failed, error.reason()))
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val uri = data?.data
        if (result != RESULT_OK || uri == null) return
        if (request == PHOTO) picked(uri) else if (request == MODEL) opened(uri)
    }

    private fun showChoices() {
        val names = kept.catalogue.names
        val chosen = kept.chosen
        choices(R.id.model, names, names.indexOf(chosen?.name)) { at ->
            kept.catalogue.find(names[at], kept.chosen?.scheme)?.let { choose(it) }
        }
        val schemes = chosen?.let { kept.catalogue.schemes(it.name) }.orEmpty()
        choices(R.id.precision, schemes, schemes.indexOf(chosen?.scheme)) { at ->
            chosen?.let { kept.catalogue.find(it.name, schemes[at]) }?.let { choose(it) }
        }
    }

    private fun choices(id: Int, texts: List<String>, selected: Int, onChoice: (Int) -> Unit) {
        val spinner = view<Spinner>(id)
        spinner.onItemSelectedListener = null
        val adapter = ArrayAdapter(this, android.R.layout.simple_spinner_item, texts)
        adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
        spinner.adapter = adapter
        if (selected >= 0) spinner.setSelection(selected, false)
        spinner.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>, view: View?, at: Int, id: Long) = onChoice(at)

            override fun onNothingSelected(parent: AdapterView<*>) = Unit
        }
    }

    private fun show(state: State) {
        val percent = kept.thresholdPercent
        view<TextView>(R.id.threshold_label).text = getString(R.string.threshold, percent)
        showAnswers(state, percent)
        val notice = when (state.notice) {
            Notice.OPENING -> getString(R.string.opening)
            Notice.NO_MODEL -> getString(R.string.no_model)
            Notice.MEASURING -> getString(R.string.measuring)
            Notice.MEASURED -> getString(R.string.measured, getExternalFilesDir("benchmark"))
            null -> null
        }
        tell(state.error ?: notice ?: kept.trouble ?: nothingAbove(state, percent))
        val asked = state.settings
        val running = state.runtime?.let { getString(R.string.running, it, asked.threads) }
        val instead = state.fallback?.let { getString(R.string.fallback, state.runtime, asked.delegate.label, it) }
        view<TextView>(R.id.runtime).text = instead ?: running.orEmpty()
        val timings = state.timings
        val preprocess = timings.spread { it.preprocessMs }
        view<TextView>(R.id.timings).text = if (preprocess == null) "" else getString(
            R.string.timings,
            timings.last.size,
            words(preprocess),
            words(timings.spread { it.inferenceMs }),
            words(timings.spread { it.totalMs }),
        )
    }

    private fun nothingAbove(state: State, percent: Int) =
        if (state.answers.isNotEmpty() && state.answers.none { it.probability * 100 >= percent }) getString(R.string.nothing_above, percent) else null

    private fun words(spread: Spread?) = spread?.let { getString(R.string.spread, it.medianMs, it.p90Ms) }.orEmpty()

    private fun showAnswers(state: State, percent: Int) {
        val rows = view<ViewGroup>(R.id.answers)
        val shown = state.answers.filter { it.probability * 100 >= percent }
        while (rows.childCount > shown.size) rows.removeViewAt(rows.childCount - 1)
        while (rows.childCount < shown.size) LayoutInflater.from(this).inflate(R.layout.answer, rows)
        shown.forEachIndexed { i, answer ->
            val row = rows.getChildAt(i)
            row.findViewById<TextView>(R.id.label)!!.text = answer.label
            row.findViewById<ProgressBar>(R.id.bar)!!.progress = (answer.probability * 1000).roundToInt()
            row.findViewById<TextView>(R.id.probability)!!.text = getString(R.string.percent, answer.probability * 100)
        }
    }

    private fun showPhoto() = view<ImageView>(R.id.photo).run {
        setImageBitmap(kept.picture)
        visibility = View.VISIBLE
    }

    private fun trouble(text: String?) {
        kept.trouble = text
        show(kept.session.state)
    }

    private fun tell(text: String?) {
        val view = view<TextView>(R.id.message)
        view.text = text.orEmpty()
        view.visibility = if (text == null) View.GONE else View.VISIBLE
    }

    private fun <T : View> view(id: Int): T = findViewById<T>(id)!!

    /** Does something on the screen's thread, on the activity that is there then. */
    private fun onScreen(work: MainActivity.() -> Unit) {
        runOnUiThread { kept.shownBy?.work() }
    }

    private companion object {
        const val CAMERA = 1
        const val PHOTO = 2
        const val MODEL = 3
        const val SHORT_SIDE_PIXELS = 480
        const val SHOWN_PIXELS = 1024
    }
}
