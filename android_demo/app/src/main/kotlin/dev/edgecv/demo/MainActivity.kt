package dev.edgecv.demo

import android.app.Activity
import android.app.AlertDialog
import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.view.Menu
import android.view.MenuItem
import android.view.WindowManager
import android.widget.EditText
import android.window.OnBackInvokedCallback
import android.window.OnBackInvokedDispatcher
import dev.edgecv.core.ModelVariant
import org.codehaus.mojo.animal_sniffer.IgnoreJRERequirement

/** The main screen: the camera or a chosen photo, and the predictions of the model. */
class MainActivity : Activity(), Screen.Actions {
    override lateinit var workspace: Workspace
        private set
    private lateinit var screen: Screen
    private lateinit var camera: LiveCamera
    private var backCallback: Any? = null // an OnBackInvokedCallback, which older systems do not have

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        @Suppress("DEPRECATION") // its replacement is in androidx
        val before = lastNonConfigurationInstance as Workspace?
        workspace = before ?: Workspace(applicationContext)
        drawBehindSystemBars()
        screen = Screen(this, this)
        camera = LiveCamera(this, workspace)
        if (before == null) workspace.load()
        workspace.shownBy = ::show
        show(workspace.state)
    }

    @IgnoreJRERequirement
    @Suppress("DEPRECATION") // the replacements need Android 11
    private fun drawBehindSystemBars() {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) window.setDecorFitsSystemWindows(false)
        else window.addFlags(WindowManager.LayoutParams.FLAG_TRANSLUCENT_STATUS)
    }

    private fun show(state: ScreenState) {
        screen.show(state)
        listenToBack(state.settingsOpen)
    }

    @Suppress("OVERRIDE_DEPRECATION")
    override fun onRetainNonConfigurationInstance(): Any = workspace

    override fun onResume() {
        super.onResume()
        camera.resume()
    }

    override fun onPause() {
        camera.pause()
        super.onPause()
    }

    override fun onDestroy() {
        if (isChangingConfigurations) workspace.shownBy = null else workspace.close()
        super.onDestroy()
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<String>, results: IntArray) =
        camera.onPermission(request, results)

    // --------------------------------------------------------------------------------------------------- the user's actions

    override fun onCreateOptionsMenu(menu: Menu): Boolean {
        menuInflater.inflate(R.menu.bar, menu)
        return true
    }

    override fun onOptionsItemSelected(item: MenuItem): Boolean {
        when (item.itemId) {
            R.id.settings -> workspace.change { copy(settingsOpen = true) }
            R.id.share -> Share.screen(this, workspace.state)
            else -> return super.onOptionsItemSelected(item)
        }
        return true
    }

    override fun useCamera() = camera.use()

    override fun choosePhoto() = pick("image/*", PHOTO)

    override fun chooseModel() = pick("*/*", MODEL) { putExtra(Intent.EXTRA_ALLOW_MULTIPLE, true) }

    override fun chooseFolder() = start(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), FOLDER)

    override fun share() = Share.measured(this, workspace.state)

    override fun rename(variant: ModelVariant) {
        val name = EditText(this).apply { setText(variant.source.file.removeSuffix(".tflite")); contentDescription = getString(R.string.rename) }
        AlertDialog.Builder(this).setTitle(R.string.rename).setView(name)
            .setPositiveButton(R.string.rename) { _, _ -> workspace.rename(variant, name.text.toString()) }
            .setNegativeButton(android.R.string.cancel, null).show()
    }

    private fun pick(type: String, request: Int, change: Intent.() -> Unit = {}) =
        start(Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(type).apply(change), request)

    private fun start(intent: Intent, request: Int) = try {
        startActivityForResult(intent, request)
    } catch (_: ActivityNotFoundException) {
        workspace.showProblem(getString(FAILED.getValue(request), getString(R.string.no_picker)))
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val several = data?.clipData?.run { (0 until itemCount).mapNotNull { getItemAt(it).uri } }.orEmpty()
        val uris = several.ifEmpty { listOfNotNull(data?.data) } // the system fills clipData where several files are chosen
        if (result != RESULT_OK || uris.isEmpty()) return
        when (request) {
            PHOTO -> workspace.openPhoto(uris.first(), camera::pause)
            MODEL -> workspace.openModel(uris)
            FOLDER -> workspace.evaluate(uris.first())
        }
    }

    @Suppress("OVERRIDE_DEPRECATION", "DEPRECATION") // Android 13 and later call the callback below instead
    override fun onBackPressed() {
        if (workspace.state.settingsOpen) closeSettings() else super.onBackPressed()
    }

    private fun closeSettings() = workspace.change { copy(settingsOpen = false) }

    /** Back closes the settings while they are open. */
    @IgnoreJRERequirement
    private fun listenToBack(listen: Boolean) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.TIRAMISU || listen == (backCallback != null)) return
        val before = backCallback as OnBackInvokedCallback?
        if (before != null) onBackInvokedDispatcher.unregisterOnBackInvokedCallback(before)
        backCallback = if (!listen) null else OnBackInvokedCallback { closeSettings() }.also {
            onBackInvokedDispatcher.registerOnBackInvokedCallback(OnBackInvokedDispatcher.PRIORITY_DEFAULT, it)
        }
    }

    companion object {
        const val PHOTO = 2
        const val MODEL = 3
        const val FOLDER = 4
        private val FAILED = mapOf(PHOTO to R.string.photo_failed, MODEL to R.string.model_failed, FOLDER to R.string.folder_failed)
    }
}
