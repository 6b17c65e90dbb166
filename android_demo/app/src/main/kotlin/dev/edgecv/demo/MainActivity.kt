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
import dev.edgecv.core.Delegate
import dev.edgecv.core.InputError
import dev.edgecv.core.ModelVariant
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

/** The main screen: the camera or a chosen photo, and the predictions of the model. */
class MainActivity : Activity() {
    /** The state that survives a rotation: the open model, the chosen photo, and the activity that shows them. */
    private class Retained {
        @Volatile
        var shownBy: MainActivity? = null
        val session = Session(TfliteRuntime, Settings(threads = 1, delegate = Delegate.XNNPACK)) { state ->
            shownBy?.runOnUiThread { shownBy?.show(state) }
        }
        val files = Executors.newSingleThreadExecutor()!! // reads photos and models off the main thread
        var catalogue = Catalogue(emptyList())
        var chosen: ModelVariant? = null
        var photo: Photo? = null
        var picture: Bitmap? = null
        var thresholdPercent = 0
        var problem: String? = null // with the camera or with a chosen file
        var permissionRequested = false // so that a denied permission is not requested again at each rotation
    }

    private lateinit var retained: Retained
    private lateinit var camera: Camera
    private val texture get() = view<TextureView>(R.id.preview)

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        @Suppress("DEPRECATION") // its replacement is in androidx
        val before = lastNonConfigurationInstance as Retained?
        retained = before ?: Retained()
        retained.shownBy = this
        camera = Camera(
            this,
            onFrame = { image, degrees ->
                if (retained.session.isFree) {
                    val frame = Camera.copy(image)
                    retained.session.offer { frame.toPhoto(degrees) }
                }
            },
            onFailure = { reason -> onScreen { showProblem(getString(R.string.camera_failed, reason)) } },
        )
        buildViews()
        if (before == null) retained.files.execute { load() }
        show(retained.session.state)
        retained.photo?.let { showPhoto() }
    }

    @Suppress("OVERRIDE_DEPRECATION")
    override fun onRetainNonConfigurationInstance(): Any = retained

    override fun onResume() {
        super.onResume()
        if (retained.photo == null) startCamera()
    }

    override fun onPause() {
        camera.stop()
        super.onPause()
    }

    override fun onDestroy() {
        if (retained.shownBy === this) retained.shownBy = null
        if (!isChangingConfigurations) {
            retained.files.shutdown()
            retained.session.close()
        }
        super.onDestroy()
    }

    // ---------------------------------------------------------------------------------------------- models and settings

    private fun load() {
        val catalogue = Catalogue.of(Models.all(applicationContext))
        onScreen {
            retained.catalogue = catalogue
            showChoices()
            catalogue.variants.firstOrNull()?.let { choose(it) }
        }
    }

    private fun choose(variant: ModelVariant) {
        if (variant == retained.chosen) return
        retained.chosen = variant
        retained.session.open(variant.source)
        showChoices()
        reclassify()
    }

    private fun changeSettings(settings: Settings) {
        if (settings == retained.session.state.settings) return
        retained.session.changeSettings(settings)
        reclassify()
    }

    /** Classifies the chosen photo again, if there is one; with the camera the next frame follows anyway. */
    private fun reclassify() {
        val photo = retained.photo ?: return
        retained.session.classify { photo }
    }

    private fun openModel(uri: Uri) = retained.files.execute {
        try {
            val variant = Catalogue.variant(Models.add(applicationContext, uri))
            onScreen {
                retained.catalogue += variant
                retained.chosen = null
                retained.problem = null
                choose(variant)
            }
        } catch (error: InputError) {
            onScreen { showProblem(error.reason()) }
        }
    }

    private fun openPhoto(uri: Uri) = retained.files.execute {
        try {
            val photo = Gallery.decode(applicationContext, uri)
            val picture = Gallery.bitmap(photo, SHOWN_PIXELS)
            onScreen {
                camera.stop()
                retained.photo = photo
                retained.picture = picture
                retained.problem = null
                showPhoto()
                reclassify()
            }
        } catch (error: InputError) {
            onScreen { showProblem(error.reason()) }
        } catch (_: OutOfMemoryError) {
            onScreen { showProblem(getString(R.string.photo_failed, "it is too large for this device")) }
        }
    }

    private fun measure() {
        val folder = getExternalFilesDir("benchmark")?.let { File(it, "app") }?.apply { mkdirs() } ?: return
        val settings = retained.session.state.settings
        val request = BenchmarkRequest(folder.name, runs = 50, warmup = 10, threads = listOf(settings.threads), delegate = settings.delegate)
        retained.session.measure(Benchmark(TfliteRuntime, AndroidMachine(applicationContext)), request) { Benchmark.write(folder, it) }
        reclassify()
    }

    // ------------------------------------------------------------------------------------------------------- the camera

    private fun startCamera() {
        if (!camera.exists) return showProblem(getString(R.string.camera_missing))
        if (!hasPermission()) {
            if (retained.permissionRequested) return showProblem(getString(R.string.camera_refused))
            retained.permissionRequested = true
            return requestPermissions(arrayOf(Manifest.permission.CAMERA), CAMERA)
        }
        showProblem(null)
        val surface = texture.surfaceTexture ?: return // its listener calls this again
        camera.start(surface, SHORT_SIDE_PIXELS, displayDegrees())
        transformPreview()
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<String>, results: IntArray) {
        if (request != CAMERA) return
        if (results.firstOrNull() == PackageManager.PERMISSION_GRANTED) startCamera() else showProblem(getString(R.string.camera_refused))
    }

    private fun transformPreview() {
        if (texture.width > 0) texture.setTransform(camera.previewTransform(texture.width, texture.height, displayDegrees()))
    }

    @Suppress("DEPRECATION") // its replacement needs Android 11
    private fun displayDegrees() = when (windowManager.defaultDisplay.rotation) {
        Surface.ROTATION_90 -> 90
        Surface.ROTATION_180 -> 180
        Surface.ROTATION_270 -> 270
        else -> 0
    }

    private fun backToCamera() {
        retained.photo = null
        retained.picture = null
        view<ImageView>(R.id.photo).visibility = View.GONE
        retained.permissionRequested = false
        startCamera()
    }

    private inner class Preview : TextureView.SurfaceTextureListener {
        override fun onSurfaceTextureAvailable(surface: SurfaceTexture, width: Int, height: Int) {
            if (retained.photo == null && hasPermission()) startCamera()
        }

        override fun onSurfaceTextureSizeChanged(surface: SurfaceTexture, width: Int, height: Int) = transformPreview()

        override fun onSurfaceTextureDestroyed(surface: SurfaceTexture): Boolean {
            camera.stop()
            return true
        }

        override fun onSurfaceTextureUpdated(surface: SurfaceTexture) = Unit
    }

    private fun hasPermission() = checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

    // -------------------------------------------------------------------------------------------------------- the screen

    private fun buildViews() {
        setContentView(R.layout.main)
        texture.surfaceTextureListener = Preview()
        view<Button>(R.id.camera_button).setOnClickListener { backToCamera() }
        view<Button>(R.id.photo_button).setOnClickListener { pick("image/*", PHOTO) }
        view<Button>(R.id.open_button).setOnClickListener { pick("*/*", MODEL) }
        view<Button>(R.id.benchmark_button).setOnClickListener { measure() }
        val threshold = view<SeekBar>(R.id.threshold)
        threshold.progress = retained.thresholdPercent
        threshold.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, percent: Int, byUser: Boolean) {
                retained.thresholdPercent = percent
                show(retained.session.state)
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
        val settings = retained.session.state.settings
        setItems(R.id.delegate, Delegate.entries.map { it.label }, settings.delegate.ordinal) {
            changeSettings(retained.session.state.settings.copy(delegate = Delegate.entries[it]))
        }
        val cores = Runtime.getRuntime().availableProcessors()
        val threads = listOf(1, 2, 4, 8).filter { it == 1 || it <= cores }
        setItems(R.id.threads, threads.map { it.toString() }, threads.indexOf(settings.threads).coerceAtLeast(0)) {
            changeSettings(retained.session.state.settings.copy(threads = threads[it]))
        }
        showChoices()
    }

    private fun pick(type: String, request: Int) = try {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(type)
        startActivityForResult(intent, request)
    } catch (error: ActivityNotFoundException) {
        showProblem(getString(R.string.photo_failed, error.reason()))
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val uri = data?.data
        if (result != RESULT_OK || uri == null) return
        if (request == PHOTO) openPhoto(uri) else if (request == MODEL) openModel(uri)
    }

    private fun showChoices() {
        val names = retained.catalogue.names
        val chosen = retained.chosen
        setItems(R.id.model, names, names.indexOf(chosen?.name)) { at ->
            retained.catalogue.find(names[at], retained.chosen?.scheme)?.let { choose(it) }
        }
        val schemes = chosen?.let { retained.catalogue.schemes(it.name) }.orEmpty()
        setItems(R.id.precision, schemes, schemes.indexOf(chosen?.scheme)) { at ->
            chosen?.let { retained.catalogue.find(it.name, schemes[at]) }?.let { choose(it) }
        }
    }

    private fun setItems(id: Int, texts: List<String>, selected: Int, onChoice: (Int) -> Unit) {
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
        val percent = retained.thresholdPercent
        view<TextView>(R.id.threshold_label).text = getString(R.string.threshold, percent)
        showPredictions(state, percent)
        val notice = when (state.notice) {
            Notice.OPENING -> getString(R.string.opening)
            Notice.NO_MODEL -> getString(R.string.no_model)
            Notice.MEASURING -> getString(R.string.measuring)
            Notice.MEASURED -> getString(R.string.measured, getExternalFilesDir("benchmark"))
            null -> null
        }
        showMessage(state.error ?: notice ?: retained.problem ?: nothingAbove(state, percent))
        val requested = state.settings
        val running = state.runtime?.let { getString(R.string.running, it, requested.threads) }
        val instead = state.fallback?.let { getString(R.string.fallback, state.runtime, requested.delegate.label, it) }
        view<TextView>(R.id.runtime).text = instead ?: running.orEmpty()
        val timings = state.timings
        val preprocess = timings.spread { it.preprocessMs }
        view<TextView>(R.id.timings).text = if (preprocess == null) "" else getString(
            R.string.timings,
            timings.last.size,
            text(preprocess),
            text(timings.spread { it.inferenceMs }),
            text(timings.spread { it.totalMs }),
        )
    }

    private fun nothingAbove(state: State, percent: Int) =
        if (state.predictions.isNotEmpty() && state.predictions.none { it.probability * 100 >= percent }) getString(R.string.nothing_above, percent) else null

    private fun text(spread: Spread?) = spread?.let { getString(R.string.spread, it.medianMs, it.p90Ms) }.orEmpty()

    private fun showPredictions(state: State, percent: Int) {
        val rows = view<ViewGroup>(R.id.predictions)
        val shown = state.predictions.filter { it.probability * 100 >= percent }
        while (rows.childCount > shown.size) rows.removeViewAt(rows.childCount - 1)
        while (rows.childCount < shown.size) LayoutInflater.from(this).inflate(R.layout.prediction, rows)
        shown.forEachIndexed { i, prediction ->
            val row = rows.getChildAt(i)
            row.findViewById<TextView>(R.id.label)!!.text = prediction.label
            row.findViewById<ProgressBar>(R.id.bar)!!.progress = (prediction.probability * 1000).roundToInt()
            row.findViewById<TextView>(R.id.probability)!!.text = getString(R.string.percent, prediction.probability * 100)
        }
    }

    private fun showPhoto() = view<ImageView>(R.id.photo).run {
        setImageBitmap(retained.picture)
        visibility = View.VISIBLE
    }

    private fun showProblem(text: String?) {
        retained.problem = text
        show(retained.session.state)
    }

    private fun showMessage(text: String?) {
        val view = view<TextView>(R.id.message)
        view.text = text.orEmpty()
        view.visibility = if (text == null) View.GONE else View.VISIBLE
    }

    private fun <T : View> view(id: Int): T = findViewById<T>(id)!!

    /** Runs on the main thread, with the activity that is shown then. */
    private fun onScreen(work: MainActivity.() -> Unit) {
        runOnUiThread { retained.shownBy?.work() }
    }

    private companion object {
        const val CAMERA = 1
        const val PHOTO = 2
        const val MODEL = 3
        const val SHORT_SIDE_PIXELS = 480
        const val SHOWN_PIXELS = 1024
    }
}
